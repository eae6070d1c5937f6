//! Words that distinguish hard requests from easy ones, in ten languages. A word ends in `*` where any
//! ending may follow; for one that ends in kana or an ideograph that always holds.

/// Words of one language, by class, separated by `|`.
pub struct Language {
    /// Asks for reasoning.
    pub hard: &'static str,
    /// A subject that small models are weak at.
    pub technical: &'static str,
    /// Courtesy, one fact, one phrase to translate.
    pub easy: &'static str,
}

pub const LANGUAGES: [Language; 10] = [
    Language {
        // English, and what programmers of all languages write.
        hard: "why|prove|proof|disprove|explain*|compar*|analy*|evaluat*|assess*|critique|\
               criticize|criticise|design|architect*|strateg*|roadmap|refactor*|\
               rewrite this code|optimi*|debug*|implement*|derive|calculat*|compute|solve|\
               solution|trade off*|tradeoff*|pros and cons|advantages|disadvantages|\
               step by step|each step|in detail|justify|argue|argument*|recommend|diagnos*|\
               investigat*|root cause|cause|causes|difference between|differences between|\
               how would you|how do i fix|how can i fix|what would|work out|figure out|essay|\
               implication*|consequence*|hypothes*|paradox|dilemma|ethic*|business plan|\
               write a plan|create a plan|make a plan|plan for|develop a|draft a|propose|weigh|\
               versus|reason through|find the bug|fix the bug|what is wrong|prioriti*|\
               which is better|should we|should i|outline|simulate|migrate|estimate how|\
               how many ways|how should|how shall|what should|how do we|how can we|how would|\
               how could|how do i approach|where do i start|where should i|what am i missing|\
               what could go wrong|is it worth|worth it|is it better|better to|better off|\
               cheaper to|is it cheaper|which one should|which option|options|to what extent|\
               what role|arguments for|for and against|both sides|each side|opposing|interpret*|\
               discuss*|reflect on|persuade|convince*|negotiat*|mediate|weaknesses|weak points|\
               poke holes|flaw|flaws|loophole*|assumptions|reasoning|plan|plans|itinerary|\
               schedule for|timetable|curriculum|syllabus|lesson plan|rota|programme for|\
               workflow|checklist|policy|framework|guideline*|convert this|\
               rewrite this function|restructur*|troubleshoot*|reproduce|fails|failing|\
               keeps crashing|does not work|doesn t work|only happens|at least|at most|in total|\
               how many different|what are the odds|odds|likelihood|on average|maximi*|minimi*|\
               prove that|show that|contradict*|infer|deduce|summarise the arguments|synthesi*|\
               contrast|critically|detailed|thorough*|comprehensive|in depth|structured|\
               multi step|calm her|calm him|respond to this complaint|objection*|counter*|\
               brainstorm|business case|pitch|case study|what if|suppose|consider the|\
               given that|under which|under what|how come|evidence|cause of|reasons",
        technical: "function|functions|script|scripts|code|program|algorithm*|python|java|\
               javascript|typescript|rust|golang|kotlin|swift|php|react|angular|vue|svelte|\
               flutter|django|laravel|node js|sql|postgres*|mysql|sqlite|mongodb|redis|kafka|\
               docker|kubernetes|linux|bash|nginx|aws|gcp|azure|api|apis|http|cors|server|\
               servers|database*|schema*|query|queries|regex|regular expression|deadlock*|\
               race condition|concurren*|thread safe|threads|cache|async*|json|yaml|csv|html|\
               css|git|github|compil*|stack trace|exception|segfault|undefined|null|array|\
               recursi*|complexity|latency|throughput|architecture|microservice*|equation*|\
               integral|derivative|probabilit*|matrix|theorem|statistic*|regression|revenue|\
               margin|margins|churn|break even|budget|forecast*|tax|taxes|liab*|contract|\
               contracts|clause|clauses|legal*|gdpr|complian*|risk|risks|conversion|experiment*|\
               crash*|bug|bugs|error|production|deploy*|scal*|backend|frontend|const|def|\
               for each|physics|chemistry|molecul*|quantum|philosoph*|claims|sales|costs|\
               profit*|loan|mortgage|lease|leasing|invest*|interest rate|savings|insurance|\
               salary|inflation|deposit|tenant|landlord|lawsuit|court|chargeback|warranty|\
               refund policy|dispute|dosage|symptom*|treatment|encryption|security|protocol|\
               network|memory leak|heap|pointer|loop|variable|class|method|library|endpoint|\
               token|iterative|sorted|typeerror|economic*|politic*|democra*|psycholog*|histor*|\
               revolution|empire|geometry|algebra|calculus|logarithm|vector|hypothesis|\
               correlation|dataset|pivot|kpi|metrics|negligen*|agreement|nda|patent|copyright|\
               procurement|supplier|supply chain|inventory|staffing|shifts|overtime|agents",
        easy: "hi|hey|hello|good morning|good afternoon|good evening|thanks|thank you|thx|\
               cheers|bye|goodbye|see you|ok|okay|got it|great|perfect|no problem|open on|\
               are you open|opening hours|open today|open tomorrow|what time|you close|you open|\
               translate|how do you say|spelling|grammar mistakes|typo|typos|shorten|shorter|\
               make this|summarise|summarize|one sentence|rephrase|where is my|my order|\
               my parcel|my package|tracking|delivery address|shipping|do you ship|\
               do you deliver|do you have|do you sell|do you accept|can i pay|password|\
               cancel my|cancel|unsubscribe|phone number|email address|your address|how much is|\
               how much does|how long does|capital of|who wrote|who painted|who invented|\
               when was|tell the customer|reply to|tell them|let him know|let her know|in stock|\
               sold out|size|colour|color|gift card*|birthday|lovely|newsletter|invoice|receipt|\
               please|happy|quick question|nice|my husband|my wife|my daughter|my son|my sister|\
               my mother|good day|morning|afternoon|evening|hiya|howdy|sorry|no worries|\
               much appreciated|appreciate it|sounds good|see you then|is anyone|anyone there|\
               do you take|do you offer|do you still|is there a|is there any|are there any|\
               can you send|could you send|please send|send me|can i come|can i get|may i|\
               i would like|i d like|we d like|i want to|i bought|i ordered|i received|\
               i got the|i can t find|i lost|i forgot|book a|a table|a room|reservation|\
               my booking|gift wrap*|refund|exchange it|return it|wrong size|arrived|delivered|\
               pick up|pickup|my account|log in|my card|say in|in english|in spanish|in french|\
               in german|which day|who is|who was|which country|what is the name|how old|\
               how far|how tall|spell|alphabetical|bullet points|into a list|friendlier|\
               text message|short note|let them know|remind the|remind them|kids|my mum|my mom|\
               my dad|my kids|neighbours|neighbors|the baby|the dog|the cat|weather",
    },
    Language {
        // German.
        hard: "warum|weshalb|wieso|beweis*|erklär*|erläuter*|vergleich*|analysier*|analyse|\
               bewert*|beurteil*|begründ*|argumentier*|entwirf|entwerf*|entwickle|konzipier*|\
               konzept|plane|planung|zeitplan|strateg*|optimier*|refaktor*|berechn*|löse|\
               lösung*|rechenweg|schritt für schritt|vorteile|nachteile|vor und nachteile|\
               für und wider|abwäg*|wäge|ursache*|woran liegt|fehler finden|untersuch*|\
               diskutier*|kritisier*|leite her|herleit*|unterschied zwischen|unterschiede|\
               empfiehl*|empfehlung|lohnt sich|sinnvoll|auswirkung*|folgen|konsequenz*|\
               wie würdest|wie gehe ich vor|grenze ich|schreibe eine funktion|\
               schreib eine funktion|schreibe ein|erstelle|ausarbeit*|schlage vor|schlage für|\
               priorisier*|was wäre wenn|wie soll|wie sollen|wie sollte|was soll ich|\
               was sollen wir|was sollten|wie gehe|wie gehen wir|wie könnte|wie würde|\
               wie verhindere|wie finde ich heraus|womit fange|wo fange|woran kann|was könnte|\
               was kann er|was kann sie|was kommt in frage|lohnt es|lohnt|ist es besser|besser|\
               günstiger|was ist günstiger|welche möglichkeiten|möglichkeiten|optionen|\
               inwiefern|inwieweit|welche rolle|argumente|was spricht|dafür und dagegen|dagegen|\
               beide seiten|standpunkt|interpretier*|deute|reflektier*|erörter*|überzeug*|\
               verhandl*|vermittl*|schwachstelle*|schwächen|annahme|annahmen|plan|einen plan|\
               essensplan|trainingsplan|lernplan|dienstplan|schichtplan|ablauf|ablaufplan|\
               lehrplan|reiseroute|checkliste|leitfaden|richtlinie|konzeptpapier|baue um|bau um|\
               schreib um|umbau|umstrukturier*|funktioniert nicht|läuft nicht|geht nicht mehr|\
               stürzt|scheitert|reproduzier*|mindestens|höchstens|insgesamt|\
               wie viele verschiedene|durchschnitt*|maximal*|minimal*|zeige dass|widerleg*|\
               widerspruch|folgere|schlussfolger*|zusammenhang|stelle gegenüber|gegenüberstell*|\
               kritisch|ausführlich|detailliert|gründlich|einwand|einwände|angenommen|\
               gesetzt den fall|unter welchen|nachweis|belege|hintergründe|gründe|welche folgen|\
               fallstudie|gutachten|stellungnahme|aufsatz|gliederung|referat",
        technical: "funktion|programm*|skript|quelltext|algorithm*|datenbank*|abfrage*|\
               schnittstelle|regulär*|fehlermeldung|absturz|stürzt ab|gleichung*|\
               wahrscheinlich*|matrix|statistik*|umsatz|marge|gewinn|haftung|steuer|steuern|\
               steuerlich*|vertrag|vertrags*|klausel*|gesetz*|rechtlich*|rechte|datenschutz*|\
               risiko|risiken|kosten|budget|gmbh|architektur|speicher|leistung|physik*|ethik|\
               ethisch*|philosoph*|kündigungsfrist|prozess*|einführung|umstellung|quote|\
               hypothese*|kulanz*|beschwerde|deckungsbeitrag|kredit|darlehen|hypothek|zins|\
               zinsen|leasing|anlage|investition*|invest*|ersparnis*|versicherung|gehalt|\
               inflation|strompreis|gasverbrauch|kaution|mieter|vermieter|klage|gericht|anwalt|\
               gewährleistung|garantie|widerruf|rücktritt|mahnung|dosis|symptom*|behandlung|\
               therapie|verschlüssel*|sicherheitslücke|protokoll|netzwerk|schleife|variable|\
               klasse|methode|bibliothek|zeiger|cronjob|array|wirtschaft*|politi*|demokrat*|\
               psycholog*|geschicht*|revolution|geometrie|algebra|würfel*|korrelation|kennzahl*|\
               vereinbarung|patent|urheberrecht|lieferant*|lieferkette|bestand|personal|\
               schichten|überstunden|team|teamleiter|mitarbeiter",
        easy: "hallo|guten morgen|guten tag|guten abend|servus|moin|danke|dankeschön|\
               vielen dank|tschüss|bis bald|bis dann|bis morgen|alles klar|passt|super|geöffnet|\
               öffnungszeiten|offen|macht ihr|schließt ihr|wann öffnet|übersetz*|was heißt|\
               wie heißt|wie sagt man|rechtschreibung|tippfehler|kürze|kürzer|wo ist|wo bleibt|\
               mein paket|meine bestellung|bestellung|lieferzeit|lieferung|versand|habt ihr|\
               haben sie|kann ich|was kostet|wie viel kostet|passwort|stornieren|abbestellen|\
               telefonnummer|adresse|auf rechnung|hauptstadt|wer hat|antworte|sag dem|\
               dem kunden|größe|gutschein|geburtstag|freundlich|bitte|freude|zufrieden|\
               mein mann|meine frau|meine tochter|mein sohn|enkel|nachbarin|newsletter|\
               kurze frage|guten|hi|hey|sorry|tut mir leid|kein problem|gern geschehen|\
               schönes wochenende|schönen tag|ist jemand|gibt es|gibts|habt ihr noch|nehmt ihr|\
               kann man|können sie mir|könnt ihr mir|können sie|könnt ihr|könnten sie|\
               schickt mir|darf ich|dürfen wir|ich hätte gern|ich möchte|wir würden gern|\
               ich bräuchte|ich brauche noch|ich habe bestellt|ich finde die|ich habe meine|\
               vergessen|verloren|einen termin|termin am|einen tisch|reservier*|buchung|zimmer|\
               geschenk*|rückerstattung|umtausch*|zurückschicken|angekommen|abholung|abholen|\
               mein konto|anmelden|meine karte|auf englisch|auf spanisch|auf französisch|\
               auf deutsch|welcher tag|wer ist|wer war|wann war|welches land|wie alt|wie weit|\
               wie hoch|wie lange|wie schreibt man|alphabetisch|stichpunkte|höflicher|\
               formuliere|kurzen zettel|kurze nachricht|gib bescheid|sag bescheid|erinnere|\
               die kinder|kinder|oma|opa|tante|der hund|katze|wetter|hat sich erledigt|\
               alles gut|sendungsnummer|parkplatz|wo seid",
    },
    Language {
        // French.
        hard: "pourquoi|prouve*|démontre*|démonstration|explique*|expliquer|compare*|comparer|\
               analyse*|analyser|évalue*|évaluer|justifi*|argument*|conçois|conçoi*|concevoir|\
               élabore*|établis un plan|un plan|planifi*|stratégie*|optimis*|refactor*|calcule*|\
               calculer|résous|résoudre|résou*|étape par étape|les étapes|en détaillant|\
               avantages|inconvénients|pour et contre|le pour et le contre|cause|causes|\
               raison pour|diagnosti*|discute*|critique*|différence entre|différences|\
               recommande*|vaut il mieux|conséquence*|implication*|comment la corriger|\
               comment corriger|comment faire pour|propose*|rédige une|rédige un|\
               écris un script|écris une fonction|que se passerait|paradoxe|thèse|dissertation|\
               déduis|comment devrais|que devrais|que dois je|que faire|que devons|\
               comment s y prendre|par où commencer|comment faire|comment réagir|\
               comment répondre|comment lui répondre|comment éviter|comment gérer|que vérifier|\
               qu est ce qui peut|faut il|vaut mieux|est ce rentable|rentable|mieux vaut|\
               plus avantageux|quelles options|options|possibilités|dans quelle mesure|\
               quel rôle|en quoi|arguments pour|pour ou contre|le pour|point de vue|interprète*|\
               commente|commentaire|réfléchis*|convaincre|persuader|négoci*|médiation|\
               points faibles|faille|failles|faiblesses|hypothèses|raisonnement|plan de|\
               programme de|emploi du temps|planning|calendrier de|itinéraire|feuille de route|\
               guide|procédure|politique de|réécris ce|transforme ce code|restructur*|\
               ne fonctionne pas|ne marche pas|plante|échoue|reproduire|au moins|au plus|\
               au total|combien de façons|combien de manières|combien de mots|de combien|\
               en moyenne|maximis*|minimis*|montre que|réfute*|contradiction|déduire|synthès*|\
               oppose|confronte*|critiquement|détaillé|approfondi|objections|supposons|\
               à supposer|étant donné|dans quel cas|preuve|preuves|raisons|quelles seraient|\
               que risque|risque t on|étude de cas|mémoire|exposé|aide moi à",
        technical: "fonction|programme|script|algorithm*|base de données|requête*|serveur|\
               erreur|bogue|équation*|probabilit*|matrice|statistique*|chiffre d affaires|marge|\
               bénéfice|rentab*|impôt*|fiscal*|contrat|clause|loi|juridique*|droits|\
               responsabilité|rgpd|risque*|coût|coûts|budget|architecture|complexité|physique|\
               éthique|philosoph*|indicateurs|réclamation|capital|prêt|placer|hypothèse*|taux|\
               déploiement|théor*|objectifs|crédit|emprunt|hypothèque|intérêt|intérêts|apport|\
               loyer|investi*|épargne|assurance|salaire|inflation|caution|locataire|bailleur|\
               tribunal|juge|avocat|litige|garantie|devis|rétractation|posologie|symptôme*|\
               traitement|chiffrement|sécurité|protocole|réseau|boucle|variable|classe|méthode|\
               bibliothèque|conteneur|économi*|politi*|démocrat*|psycholog*|histoire|révolution|\
               géométrie|algèbre|corrélation|accord|brevet|fournisseur*|tarifs|stock|effectif|\
               heures supplémentaires|concours|entreprise|commerce",
        easy: "bonjour|bonsoir|salut|coucou|merci|au revoir|à bientôt|bonne journée|d accord|\
               parfait|ouvert|ouverts|ouvrez|fermez|horaires|à quelle heure|traduis|traduire|\
               comment dit on|orthographe|corrige les fautes|raccourcis|plus court|où est|\
               où en est|ma commande|mon colis|livraison|avez vous|acceptez vous|vendez vous|\
               auriez vous|combien coûte|mot de passe|annuler|me connecter|désabonner|téléphone|\
               adresse|en stock|rupture|capitale|qui a écrit|qui a peint|réponds à|réponds au|\
               dis au client|dis à|taille|anniversaire|s il vous plaît|grand merci|ma fille|\
               mon fils|mon mari|ma femme|voisins|puis je|bonne soirée|bonne nuit|bon week end|\
               allô|désolé|désolée|pas de souci|de rien|c est parfait|c est noté|\
               il y a quelqu un|y a t il|est ce qu il y a|est ce que vous|avez vous encore|\
               prenez vous|peut on|pouvez vous|pourriez vous|envoyez moi|m envoyer|je voudrais|\
               je veux|j aimerais|nous aimerions|nous voudrions|il me faudrait|j ai reçu|\
               j ai commandé|j ai acheté|je n ai pas reçu|je ne retrouve|j ai perdu|j ai oublié|\
               rendez vous|une table|une chambre|réserver|réservation|mon compte|ma carte|\
               remboursé|échanger|renvoyer|arrivé|récupérer|retirer|en anglais|en espagnol|\
               en allemand|en français|quel jour|qui est|qui était|quel pays|quel âge|\
               quelle distance|combien de temps|combien de jours|combien pèse|pluriel|\
               comment s écrit|ordre alphabétique|sous forme de liste|plus poli|petit mot|\
               préviens|rappelle au|les enfants|ma mère|mon père|ma belle mère|le chien|le chat|\
               la petite|bébé|magasin|parking",
    },
    Language {
        // Spanish.
        hard: "por qué|porqué|demuestra*|demostr*|explica*|explícame|compara*|analiza*|análisis|\
               evalúa*|evaluar|justifica*|argument*|razona*|diseña*|elabora*|planifica*|un plan|\
               estrategia*|optimiza*|refactoriza*|calcula*|resuelve*|resolver|paso a paso|\
               ventajas|desventajas|inconvenientes|pros y contras|a favor y en contra|causas|\
               causa|diagnostica*|investiga*|discute*|critica*|diferencia entre|diferencias|\
               recomienda*|recomendación|conviene|consecuencia*|implicacion*|cómo lo depuro|\
               cómo lo arreglo|cómo lo soluciono|propón|propuesta|redacta una|\
               escribe una función|escribe una consulta|escribe un programa|escribe un script|\
               qué pasaría|paradoja|ensayo|hipótesis|pondera*|deduce|cómo mido|cómo debería|\
               cómo debo|qué debería|qué debo|qué hago|qué hacemos|qué podemos|\
               por dónde empiezo|por dónde empezar|cómo abordar|cómo abordo|cómo respondo|\
               cómo evitar|cómo gestionar|qué reviso|qué puede estar|me conviene|merece la pena|\
               vale la pena|es mejor|qué sale mejor|más barato|más rentable|opciones|\
               alternativas|hasta qué punto|qué papel|en qué medida|argumentos|a favor|\
               en contra|postura|interpreta*|comenta el|reflexiona*|convencer|persuadir|negoci*|\
               mediar|puntos débiles|debilidades|fallos|suposiciones|razonamiento|plan de|\
               programa de|calendario de|horario de trabajo|cuadrante|itinerario|hoja de ruta|\
               guía|protocolo de|procedimiento|política de|pasa este código|convierte este|\
               reescribe|reestructur*|no funciona|no me funciona|falla|se cuelga|se cierra|\
               reproducir|al menos|como mínimo|como máximo|en total|de cuántas maneras|\
               de cuántas formas|cuántas maneras|por término medio|en promedio|maximiz*|\
               minimiz*|demuestra que|refuta*|contradic*|deducir|sintetiza*|contrasta*|\
               críticamente|detallad*|exhaustiv*|a fondo|objeciones|supongamos|suponiendo|\
               dado que|en qué casos|pruebas de|motivos|razones|estudio de caso|monografía|\
               qué riesgos|ayúdame a|cómo medir*|hazme un|hazme una|prepárame",
        technical: "función|programa|script|código|algoritmo*|base de datos|consulta sql|\
               consultas|servidor|error|ecuación|ecuaciones|probabilidad*|matriz|estadística*|\
               integral|ingresos|margen|beneficio*|rentab*|impuesto*|fiscal*|contrato|cláusula*|\
               ley|legal*|derechos|responsabilidad*|riesgo*|costes|costos|presupuesto|\
               arquitectura|complejidad|física|ética|filosof*|molecular|producción|memoria|\
               punto de equilibrio|usuarios|registro|pruebas|sistema|abandone|tasa|préstamo|\
               hipoteca|interés|intereses|alquiler|invert*|ahorro*|seguro|salario|inflación|\
               fianza|inquilino|casero|juicio|tribunal|abogado|demanda|garantía|reclamación|\
               culpa|dosis|síntoma*|tratamiento|cifrado|seguridad|red|bucle|variable|clase|\
               método|biblioteca|token|async|econom*|polític*|democra*|psicolog*|historia|\
               revolución|imperio|geometría|álgebra|dados|correlación|acuerdo|patente|\
               proveedor*|inventario|plantilla|turnos|autónomo|facturo|socio|empresa",
        easy: "hola|buenos días|buenas tardes|buenas noches|buenas|gracias|adiós|hasta luego|\
               un saludo|vale|listo|perfecto|abren|cierran|horario|a qué hora|traduce|traducir|\
               cómo se dice|ortografía|acorta|más corto|dónde está|mi pedido|mi paquete|pedido|\
               envío|tienen|aceptan|venden|reparten|cuánto cuesta|cuánto tarda|contraseña|\
               cancelar|darme de baja|teléfono|dirección|talla|disponible|capital de|\
               quién escribió|quién pintó|responde al|dile|por favor|cumpleaños|felicitar*|\
               mi hija|mi hijo|mi abuela|mi madre|mi hermana|vecinas|tarjeta|hasta mañana|\
               perdón|disculpe|no pasa nada|de nada|hay alguien|hay algún|hay alguna|\
               tienen todavía|me pueden|pueden enviar*|podrían|podría|se puede|puedo devolver*|\
               puedo recoger|puedo|me gustaría|nos gustaría|quisiera|quería|quiero|\
               necesito una copia|he recibido|me llegó|he pedido|compré|no encuentro|he perdido|\
               he olvidado|se me olvidó|una cita|una mesa|una habitación|reservar|reserva|\
               mi cuenta|mi tarjeta|reembolso|devolver|llegó|recoger|en inglés|en francés|\
               en alemán|en español|qué día|quién es|quién fue|qué país|cuántos años|\
               a qué distancia|cuántos días|plural|cómo se escribe|orden alfabético|\
               en forma de lista|más amable|nota corta|contesta al|avisa al|avisa a|recuérdale|\
               los niños|mi padre|mi marido|mi mujer|la abuela|el perro|el gato|bebé|tienda|\
               aparcamiento|factura|cuál es",
    },
    Language {
        // Portuguese.
        hard: "por que|porque razão|prove|provar|demonstre|explique*|explica*|compare|comparar|\
               analise|analisar|avalie|avaliar|justifique|argument*|projete|projetar|elabore|\
               desenvolva|planeje|monte um|cronograma|um plano|estratégia*|otimiz*|refator*|\
               calcule|calcular|resolva|resolver|passo a passo|os passos|vantagens|desvantagens|\
               prós e contras|causas|causa|diagnostique|investig*|discuta|critique|\
               diferença entre|diferenças|recomende|vale a pena|compensa|consequência*|\
               implicações|como resolver|como corrigir|proponha|redija|escreva uma função|\
               escreva um programa|escreva um script|o que aconteceria|paradoxo|hipótese*|\
               pondere|devo|deduza|identifique|como devo|como deveria|o que devo|o que fazer|\
               o que faço|o que fazemos|por onde começo|por onde começar|como abordar|\
               como responder|como evitar|como lidar|como recusar|como convenço|como convencer|\
               o que investigar|o que verificar|o que pode ser|é melhor|qual compensa|\
               mais barato|mais vantajoso|quais opções|opções|alternativas|até que ponto|\
               qual o papel|em que medida|argumentos|a favor|contra|posição|interprete|comente|\
               reflita|persuadir|negoci*|mediar|pontos fracos|fraquezas|premissas|raciocínio|\
               plano de|programa de|calendário de|escala de|roteiro de|roteiro|guia|\
               procedimento|política de|reescreva|converta este|reestrutur*|não funciona|\
               não está funcionando|trava|fecha sozinho|falha quando|reproduzir|pelo menos|\
               no mínimo|no máximo|no total|de quantas maneiras|quantas maneiras|quantas formas|\
               em média|maximiz*|minimiz*|mostre que|refute|contradi*|deduzir|sintetize|\
               contraste|crítica|criticamente|detalhad*|aprofundad*|objeções|suponha|supondo|\
               dado que|em quais casos|provas|motivos|razões|estudo de caso|monografia|redação|\
               quais foram|me ajude a|preciso de um plano|faça uma análise",
        technical: "função|programa|script|código|algoritmo*|banco de dados|base de dados|\
               consulta|servidor|erro|equação|equações|probabilidade*|matriz|estatística*|\
               receita|faturamento|margem|lucro|imposto*|tributár*|contrato|cláusula*|lei|legal|\
               jurídic*|direitos|responsabilidade*|risco*|custos|custo|orçamento|arquitetura|\
               complexidade|física|ética|éticas|filosof*|dependências|usuários|falha|falhas|\
               modelo|reclamação|sistema|contingência|filas|investir|contratar|precificação|\
               correlação|empréstimo|financiar|financiamento|hipoteca|juros|aluguel|investi*|\
               poupança|seguro|salário|inflação|caução|inquilino|proprietário|processo|justiça|\
               juiz|advogado|garantia|direito|prejuízo|dose|sintoma*|tratamento|criptografia|\
               segurança|rede|laço|variável|classe|método|biblioteca|android|econom*|polític*|\
               democra*|psicolog*|história|crise|revolução|império|geometria|álgebra|acordo|\
               patente|fornecedor*|estoque|escala|diretoria|sócio|empresa|mutação",
        easy: "oi|olá|bom dia|boa tarde|boa noite|obrigado|obrigada|valeu|tchau|até mais|\
               até logo|tá bom|beleza|certo|abrem|fecham|horário|que horas|traduza|traduzir|\
               como se diz|ortografia|corrija a ortografia|encurte|onde está|cadê|meu pedido|\
               minha encomenda|encomenda|entrega|prazo de entrega|vocês têm|vocês fazem|\
               tem esse|aceitam|vendem|quanto custa|senha|cancelar|telefone|endereço|tamanho|\
               disponível|capital da|capital do|quem escreveu|quem pintou|responda ao|diga ao|\
               por favor|aniversário|tudo bem|minha filha|meu filho|minha esposa|meu marido|\
               agradecer|deu certo|até amanhã|desculpe|desculpa|sem problema|de nada|imagina|\
               tem alguém|tem algum|tem alguma|ainda tem|vocês entregam|vocês aceitam|\
               podem enviar|podem mandar|podem me|poderia|dá pra|dá para|posso|eu gostaria|\
               a gente gostaria|gostaria|queria|quero|preciso de uma cópia|recebi|chegou|\
               comprei|pedi|não achei|não encontro|perdi|esqueci|uma mesa|um quarto|reservar|\
               reserva|minha conta|meu cartão|reembolso|devolver|retirar|buscar|em inglês|\
               para o inglês|para o italiano|em espanhol|que dia|quem é|quem foi|quem descobriu|\
               qual país|quantos anos|quantos dias|plural|como se escreve|ordem alfabética|\
               em tópicos|mais educado|bilhete|avise|lembre|as crianças|minha mãe|meu pai|\
               o cachorro|o gato|bebê|loja|estacionamento|nota fiscal|qual é|qual o endereço|\
               blz|show",
    },
    Language {
        // Italian.
        hard: "perché|dimostra*|dimostrazione|spiega*|confronta*|paragona*|analizza*|analisi|\
               valuta*|giustifica*|argomenta*|progetta*|elabora*|pianifica*|un piano|strategia*|\
               ottimizz*|rifattorizz*|calcola*|risolvi|risolvere|passo dopo passo|\
               passo per passo|i passaggi|vantaggi|svantaggi|pro e contro|cause|causa|\
               diagnostic*|discuti|critica*|differenza tra|differenze|consiglia*|conviene|\
               conseguenz*|implicazion*|come la ottimizzo|come lo risolvo|come si risolve|\
               proponi|redigi|scrivi una funzione|scrivi una classe|scrivi un programma|\
               scrivi uno script|paradosso|saggio|ipotesi|deduci|come si generalizza|\
               cosa succederebbe|verificar*|fasi|come dovrei|cosa dovrei|che devo fare|\
               cosa fare|cosa faccio|cosa facciamo|da dove comincio|da dove cominciare|\
               come affrontare|come imposto|come rispondere|cosa gli rispondiamo|\
               cosa rispondiamo|come evitare|come gestire|cosa controllare|cosa può essere|\
               vale la pena|è meglio|meglio|più conveniente|opzioni|alternative|in che misura|\
               fino a che punto|che ruolo|quanto pesò|argomenti|a favore|contro|posizione|\
               interpreta*|commenta|rifletti|convincere|persuadere|negozia*|tratta*|mediare|\
               punti deboli|debolezze|presupposti|ragionamento|piano di|programma di|\
               calendario di|turni|itinerario|tabella di marcia|guida|procedura|organizzami|\
               organizza|preparami|riscrivi|converti questo|ristruttur*|non funziona|si blocca|\
               si chiude|fallisce|riprodurre|almeno|al massimo|in tutto|in totale|\
               in quanti modi|quanti modi|in media|massimizz*|minimizz*|mostra che|confuta*|\
               contraddi*|dedurre|sintetizza*|metti a confronto|criticamente|dettagliat*|\
               approfondit*|obiezion*|supponiamo|supponendo|dato che|in quali casi|prove|motivi|\
               ragioni|caso di studio|tema|relazione|cosa possiamo|aiutami a",
        technical: "funzione|programma|script|codice|algoritm*|database|query|server|errore|\
               equazion*|disequazion*|probabilità|matrice|statistic*|ricavi|fatturato|margine|\
               utile|commission*|imposta|imposte|tasse|fiscal*|contratto|clausol*|legge|legal*|\
               diritti|responsabilità|rischi|rischio|costi|budget|architettura|complessità|\
               fisica|chimica|etica|filosof*|sistema|tabelle|gestionale|classe|mercato|\
               ammortament*|prestito|mutuo|interesse|interessi|affitto|investi*|risparm*|\
               assicurazione|stipendio|inflazione|caparra|inquilino|proprietario|causa legale|\
               tribunale|giudice|avvocato|garanzia|difetto|forfettario|spese|dose|sintom*|\
               terapia|crittografia|sicurezza|rete|ciclo|variabile|metodo|libreria|utenti|\
               econom*|politic*|democra*|psicolog*|storia|guerra|rivoluzione|impero|geometria|\
               algebra|correlazione|accordo|brevetto|fornitor*|magazzino|personale|straordinari|\
               dipendente|colloquio|azienda|int|return",
        easy: "ciao|buongiorno|buonasera|salve|grazie|arrivederci|a presto|a domani|va bene|\
               perfetto|ci sentiamo|aperti|aprite|chiudete|orari|a che ora|traduci|tradurre|\
               come si dice|ortografia|accorcia|dov è|dove è|il mio ordine|il mio pacco|ordine|\
               spedizione|consegna|avete|accettate|vendete|quanto costa|disdire|annullare|\
               telefono|indirizzo|taglia|disponibile|capitale|chi ha scritto|chi ha dipinto|\
               rispondi al|scrivi al cliente|di al cliente|per favore|compleanno|ringraziar*|\
               mia figlia|mio figlio|mio marito|mia moglie|suocera|felicissimi|buonanotte|\
               scusate|scusi|nessun problema|di niente|prego|c è qualcuno|c è posto|\
               avete ancora|c è|ci sono|potete mandar*|potete|potreste|si può|posso|vorrei|\
               vorremmo|volevo|mi servirebbe|ho ricevuto|mi è arrivat*|ho ordinato|ho comprato|\
               non trovo|ho perso|ho dimenticato|un tavolo|una camera|prenotare|prenotazione|\
               il mio account|la mia carta|rimborso|restituire|ritirare|in inglese|in spagnolo|\
               in francese|in tedesco|che giorno|chi è|chi era|quale paese|quanti anni|\
               quanto dista|quanti giorni|plurale|come si scrive|ordine alfabetico|in elenco|\
               più gentile|biglietto|avvisa|ricorda al|i bambini|mia madre|mio padre|mio nonno|\
               la nonna|il cane|il gatto|neonato|negozio|parcheggio|corriere|codice sconto|\
               qual è",
    },
    Language {
        // Russian.
        hard: "почему|зачем|докаж*|доказ*|объясн*|поясни|сравни*|сравнен*|проанализ*|анализ*|\
               оцени|оценить|оценка|обоснуй*|аргумент*|спроектир*|разработ*|составь план|\
               составь|план|стратеги*|оптимиз*|отрефактор*|перепиши функц*|рассчитай*|вычисли*|\
               посчитай|реши|решить|решени*|по шагам|пошагов*|преимуществ*|недостатк*|\
               плюсы и минусы|за и против|причин*|диагност*|исследу*|обсуди*|критик*|разниц*|\
               отличи*|отличается|порекоменд*|стоит ли|выгодно ли|последств*|как исправить|\
               как найти|как решить|предложи|напиши функцию|напиши скрипт|напиши программу|\
               напиши код|парадокс|эссе|гипотез*|выведи|что будет если|как перевезти|рассуд*|\
               выдели|этапы|как мне|как нам|как быть|что делать|что нам делать|что мне делать|\
               что проверить|с чего начать|как лучше|как поступить|как ответить|\
               как ему ответить|как избежать|как организовать|что может быть|стоит|выгоднее|\
               что выгоднее|что лучше|лучше ли|варианты|варианта|возможности|в какой мере|\
               насколько|какую роль|аргументы|каковы|обе стороны|позици*|интерпретир*|истолкуй|\
               размышл*|убедить|переговор*|договориться|слабые места|слабости|допущени*|логик*|\
               программу обучения|программа|расписание|график|маршрут|дорожн*|инструкци*|\
               регламент|методик*|перепиши|преобразуй|не работает|отвалил*|падает|вылетает|\
               воспроизв*|хотя бы|не менее|не более|всего|сколькими способами|сколько способов|\
               в среднем|максимальн*|минимальн*|покажи что|опроверг*|противореч*|сделай вывод|\
               вывод|обобщи|сопостав*|критически|подробн*|детальн*|возражен*|предположим|\
               допустим|при каких|доказательств*|основани*|обязаны ли|имеем ли право|\
               имеет ли право|реферат|сочинение|доклад|помоги составить",
        technical: "функци*|программ*|скрипт*|код|алгоритм*|баз данных|базы данных|базу данных|\
               запрос*|сервер*|ошибк*|уравнен*|вероятност*|матриц*|статистик*|выручк*|прибыл*|\
               маржа|марж*|наценк*|налог*|договор*|пункт договора|закон*|юридич*|прав потреб*|\
               ответственност*|риск*|затрат*|бюджет*|архитектур*|сложност*|физик*|этик*|\
               философ*|приложение падает|сборк*|жалоб*|претензи*|компенсаци*|нагрузк*|\
               пользовател*|поток*|систем*|кредит*|ипотек*|процент*|аренд*|инвест*|сбережен*|\
               копить|страхов*|зарплат*|инфляц*|залог|жильц*|суд|суда|юрист*|иск|гаранти*|\
               пломб*|возврат*|доз*|симптом*|лечени*|шифрован*|безопасност*|протокол*|сеть|сети|\
               цикл*|переменн*|класс|метод|библиотек*|вебсокет*|экономик*|политик*|парламент*|\
               демократ*|психолог*|истори*|революц*|импер*|геометр*|алгебр*|корреляц*|соглашен*|\
               патент*|поставщик*|склад*|персонал*|смены|сверхурочн*|дедлайн*|заказчик*|\
               требовани*|команда",
        easy: "привет|здравствуйте|добрый день|добрый вечер|доброе утро|спасибо|благодар*|\
               до свидания|пока|ок|хорошо|понял|поняла|ясно|вы работаете|часы работы|во сколько|\
               переведи|перевести|как будет|исправь ошибки|орфограф*|опечатк*|сократи|короче|\
               где мой|мой заказ|заказ|посылк*|доставк*|есть ли|сколько стоит|можно оплатить|\
               пароль|отменить|отписаться|телефон|адрес|размер|в наличии|столица|кто написал|\
               кто нарисовал|ответь клиенту|напиши клиенту|скажи клиенту|пожалуйста|\
               день рождения|подскажите|моя дочь|внучк*|соседи|муж|жена|личный кабинет|вежлив*|\
               доброй ночи|извините|не за что|договорились|до завтра|есть кто|есть у вас|\
               у вас есть|вы принимаете|вы доставляете|можно ли|можно|пришлите|не могли бы|\
               могли бы|хочу|хотела|хотел|мы хотели|мне нужно|получил|получила|пришла|пришёл|\
               заказал|заказала|купил|купила|не нахожу|не приходит|потерял|забыл|забыла|\
               записаться|запись|столик|номер|забронир*|бронь|мой аккаунт|карта|вернуть деньги|\
               обмен*|забрать|по английски|на английский|на французский|какой день|кто такой|\
               кто такая|какая страна|сколько лет|как далеко|сколько дней|сколько планет|\
               множественн*|как пишется|алфавит*|списком|вежливее|записку|предупреди|напомни|\
               дети|сын|мама|папа|бабушк*|кот|собак*|погода|парковк*|курьер|магазин",
    },
    Language {
        // Chinese.
        hard: "为什么|为何|证明|解释|说明|比较|对比|分析|评估|评价|论述|论证|讨论|设计|制定|\
               规划|计划|方案|策略|优化|重构|计算|求解|解方程|步骤|推理|推导|利弊|优缺点|正反|\
               原因|排查|定位|诊断|区别|差异|建议|推荐|影响|后果|如何解决|怎么解决|怎么办|\
               写一个|编写|实现|悖论|假设|预测|权衡|哪个更好|怎么分|论据|原理|提出|怎样|\
               怎么处理|怎么回复|怎么应对|怎么谈|该怎么|应该怎么|应不应该|该不该|要不要|如何|\
               从哪里|从哪查|划算|值得吗|值不值|哪种|哪个更|更好|办法|方法|选择|在多大程度|\
               多大程度|作用|角色|论点|支持和反对|反对|立场|解读|赏析|反思|说服|谈判|协商|调解|\
               漏洞|弱点|前提|逻辑|安排|日程|课程|大纲|行程|清单|流程|规范|制度|排班|改写|改成|\
               转换成|不工作|失败|崩溃|重现|至少|最多|一共|总共|多少种|几种|平均|最大|最小|能被|\
               反驳|矛盾|推断|归纳|综合|对照|详细|深入|全面|异议|假如|如果|在什么情况|证据|理由|\
               根据|会不会|是否|体现|考核|练习",
        technical: "函数|程序|脚本|代码|算法|数据库|查询|服务器|报错|错误|线程|缓存|并发|接口|\
               方程|概率|矩阵|统计|收入|利润|成本|预算|风险|税|合同|条款|法律|责任|赔偿|架构|\
               复杂度|物理|伦理|哲学|量子|系统|部署|转化率|投诉|索引|内存|表结构|数据|论文|贷款|\
               房贷|利率|利息|投资|理财|储蓄|保险|工资|通胀|押金|房东|租客|起诉|法院|律师|保修|\
               退款政策|规定|剂量|症状|治疗|加密|安全|协议|网络|循环|变量|类|方法名|库|经济|\
               政治|民主|心理|历史|军事|革命|王朝|宋朝|几何|代数|相关性|专利|供应商|库存|人手|\
               加班|培训|合伙人|公司|估值|现金|贫富|人工智能",
        easy: "你好|您好|在吗|谢谢|感谢|再见|拜拜|好的|明白了|知道了|营业|几点|开门|关门|翻译|\
               用英语怎么说|怎么说|错别字|我的订单|订单|快递|发货|运费|有货|现货|有没有|多少钱|\
               可以用|支付|密码|取消|电话|地址|尺码|颜色|首都|作者是谁|谁写|回复顾客|回复客户|\
               回复客人|告诉客户|请问|生日|高兴|奶奶|爷爷|妈妈|爸爸|孩子|邻居|喜欢|顺便问|\
               早上好|晚上好|晚安|不好意思|没关系|不客气|收到|有人吗|有红色|还有吗|能不能寄|\
               能寄|麻烦寄|可以寄|能开|可以改|我想|我们想|我要|我想要|想要|我买|我收到|昨天收到|\
               我的|找不到|忘了|丢了|预约|订位|订房|房间|退货|退款|换货|取货|自提|账号|我的卡|\
               英文|法语|日语|德语|哪天|是谁|谁是|哪个国家|几岁|多远|多久|几天|复数|怎么写|\
               怎么改|怎么修改|按字母|列表|整理成|便条|短信|提醒|告诉|女儿|儿子|猫|狗|天气|停车|\
               快递员|发票|哪里",
    },
    Language {
        // Japanese.
        hard: "なぜ|何故|どうして|証明|説明|比較|分析|評価|検討|論じ|議論|設計|計画|戦略|最適化|\
               リファクタ|計算|解いて|解け|途中の式|手順|段階|推論|導出|利点|欠点|メリット|\
               デメリット|長所|短所|原因|調査|診断|違い|提案|推奨|影響|直し方|解決|対応案|\
               考えてください|作成して|実装|矛盾|仮説|予測|べきか|どちらが|仕組み|どうすれば|\
               どうしたら|どう対応|どう話|どう返信|どう進め|どこを見れば|どこから|何を確認|\
               すべき|べきです|ほうがいい|ほうが得|どちらが得|得か|得ですか|選択肢|方法|\
               どの程度|どこまで|役割|論点|賛成|反対|立場|解釈|読み解|考察|説得|交渉|調整|弱点|\
               欠陥|前提|論理|日程|予定表|カリキュラム|研修|旅程|チェックリスト|手順書|規定|\
               書き直|直して|変換|動かない|動きません|失敗|落ちる|再現|少なくとも|多くとも|\
               全部で|何通り|平均|最大|最小|述べよ|述べなさい|反論|推測|要約して分析|総合|対比|\
               詳しく|徹底|理由|根拠|もし|場合|証拠|引き止め|目標|期間",
        technical: "関数|プログラム|スクリプト|コード|アルゴリズム|データベース|クエリ|サーバ|\
               エラー|スレッド|キャッシュ|並行|方程式|確率|行列|統計|売上|利益|費用|予算|コスト|\
               リスク|税|契約|条項|法律|責任|苦情|アーキテクチャ|計算量|物理|倫理|哲学|量子|\
               システム|インデックス|テスト|指標|運用|自動化|制度|状態|ローン|住宅|金利|利息|\
               投資|貯金|頭金|家賃|保険|給料|年収|インフレ|敷金|大家|訴訟|裁判|弁護士|保証|規約|\
               返品|用量|症状|治療|暗号|セキュリティ|プロトコル|ネットワーク|ループ|変数|クラス|\
               メソッド|ライブラリ|デプロイ|ログイン|経済|政治|民主|心理|歴史|幕府|革命|帝国|\
               幾何|代数|相関|特許|仕入|在庫管理|人員|残業|部下|評価方法|サイコロ",
        easy: "こんにちは|こんばんは|おはよう|はじめまして|お世話になって|ありがとう|感謝|\
               失礼します|さようなら|了解|わかりました|承知|営業|何時|開いて|閉まり|訳して|翻訳|\
               英語で|何と言い|誤字|短くして|注文番号|荷物|配送|送料|届き|ありますか|いくら|\
               できますか|パスワード|キャンセル|電話番号|住所変更|サイズはあり|首都|作者|誰です|\
               お客様に|伝えてください|返信してください|誕生日|喜んで|家族|子ども|祖母|\
               予約はいつ|いただき|おやすみ|すみません|ごめん|大丈夫です|どういたしまして|\
               助かり|では明日|何時まで|在庫は|まだありますか|送ってもらえ|送ってほしい|送って|\
               もらえますか|お願いします|ほしいです|したいです|行きたい|いいですか|買いました|\
               届いた|届きました|見つかりません|忘れました|なくし|予約し|席|部屋|返金|交換|\
               受け取り|アカウント|カード|英語に|英語は|フランス語|何曜日|誰ですか|どこの国|\
               何歳|どのくらい|何日|高さは|箇条書き|お知らせ|短く|伝えて|母|父|猫|犬|天気|\
               駐車場|湯のみ|赤ちゃん",
    },
    Language {
        // Arabic.
        hard: "لماذا|أثبت|برهن|اشرح|شرح|فسر|وضح|توضيح|قارن|مقارنة|حلل|تحليل|قيّم|قيم|تقييم|ناقش|\
               برر|جادل|صمم|تصميم|خطة|خطط|استراتيجية|حسن الأداء|أعد هيكلة|احسب|يحسب|حل المعادلة|\
               حل|خطوات|الخطوات|خطوة بخطوة|مزايا|عيوب|إيجابيات|سلبيات|أسباب|السبب|سبب|شخص|\
               الفرق بين|فرق|انصح|اقترح|تأثير|آثار|عواقب|كيف أصلح|كيف أعرف|كيف تقيس|كيف أحل|\
               اكتب برنامجا|اكتب دالة|اكتب كود|اكتب برنامج|مفارقة|فرضية|استنتج|جدوى|ماذا لو|حدد|\
               كيف يجب|كيف ينبغي|ماذا أفعل|ماذا نفعل|ما العمل|كيف أتصرف|كيف أتعامل|كيف نرد|\
               كيف أرد|كيف أتجنب|من أين أبدأ|من أين نبدأ|ما الذي يجب|هل يستحق|أيهما|أيهما أفضل|\
               أيهما أوفر|أفضل|الأفضل|أوفر|خيارات|الخيارات|بدائل|إلى أي مدى|ما دور|الحجج|حجج|\
               مع وضد|الرأيين|وجهة نظر|تأمل|أقنع|إقناع|تفاوض|التفاوض|نقاط الضعف|ثغرات|افتراض|\
               المنطق|برنامج تدريب|جدول|جدولا|جدول زمني|منهج|مسار|قائمة مراجعة|دليل|سياسة|ضع لي|\
               ضع خطة|أعد كتابة|حول هذا|لا يعمل|ينهار|يفشل|على الأقل|على الأكثر|كم طريقة|\
               بكم طريقة|في المتوسط|المتوسط|بالضبط|أقصى|أدنى|أثبت أن|فند|تناقض|لخص الحجج|ادمج|\
               نقدي|بالتفصيل|مفصل|معمق|اعتراض|لنفترض|افترض|في أي حالة|أدلة|دليل على|هل يحق|\
               ما حقوق|مقال|بحث|ساعدني|لتعلم",
        technical: "دالة|برنامج|برمجة|كود|خوارزمية|قاعدة بيانات|قواعد البيانات|استعلام|خادم|خطأ|\
               معادلة|احتمال|مصفوفة|إحصاء|إيرادات|أرباح|ربح|هامش|تكلفة|تكاليف|ميزانية|بميزانية|\
               مخاطر|ضريبة|ضرائب|عقد|بند|قانون|قانونية|حقوق|مسؤولية|تعويض|تعويضا|شكوى|نظام|\
               بايثون|جافاسكريبت|تطبيق|فيزياء|أخلاق|فلسفة|علميا|المبيعات|مبيعات|المخزون|بيانات|\
               قرض|رهن|فائدة|الفائدة|إيجار|استثمار|ادخار|تأمين|راتب|تضخم|مستأجر|دعوى|محكمة|\
               محام*|ضمان|بالتقسيط|تقسيط|قسط|نقدا|جرعة|أعراض|علاج|تشفير|أمن|بروتوكول|شبكة|حلقة|\
               متغير|مكتبة|الخادم|البيانات|اقتصاد*|سياس*|ديمقراط*|نفسية|تاريخ|سقطت|ثورة|هندسة|\
               جبر|اتفاق|براءة|مورد|مخزون|موظف*|العمل الإضافي|شركة|مشاريع|التعليم",
        easy: "مرحبا|أهلا|السلام عليكم|صباح الخير|مساء الخير|شكرا|أشكركم|مع السلامة|إلى اللقاء|\
               تمام|حسنا|تعملون|تفتحون|تغلقون|متى|ساعات العمل|ترجم|كيف نقول|صحح|الإملائية|\
               أين طلبي|طلبي|شحنتي|أين وصلت|التوصيل|هل يتوفر|هل لديكم|هل عندكم|كم سعر|بكم|الدفع|\
               كلمة المرور|إلغاء|رقم الهاتف|العنوان|بمقاس|مقاس|متوفر|عاصمة|من كتب|من رسم|\
               أخبر العميل|رد على|من فضلك|لو سمحت|عيد ميلاد|سعداء|جدتي|أولادي|والدتي|أختي|\
               مساء النور|تصبح على خير|آسف|عفوا|لا مشكلة|هل من أحد|هل يوجد|هل أنتم|هل عندك|\
               ترسلون|أرسلوا|هل يمكن|هل أستطيع|ممكن|أريد|أود|نود|وصلني|وصلتني|اشتريت|لا أجد|\
               نسيت|فقدت|موعد|طاولة|غرفة|الغرفة|حجز|الحجز|حسابي|بطاقتي|استرجاع|إرجاع|استبدال|\
               استلام|بالفرنسية|بالإنجليزية|إلى الفرنسية|أي يوم|من هو|من هي|أي بلد|كم عمر|\
               كم يبعد|كم يوما|ما اسم|جمع كلمة|كيف أقول|كيف تكتب|أبجدي|في نقاط|قصيرة|ذكر العميل|\
               الأطفال|ابنتي|أمي|أبي|القطة|الكلب|الجو|موقف|جارتنا|أكبر|رسوم",
    },
];
