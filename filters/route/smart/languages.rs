//! Words that tell hard requests from easy ones, in ten languages. A word ends in `*` where any ending may
//! follow; one that ends in kana or an ideograph always may.

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
               criticize|criticise|design|architect*|strateg*|roadmap|refactor*|rewrite this code|\
               optimi*|debug*|implement*|derive|calculat*|compute|solve|solution|trade off*|\
               tradeoff*|pros and cons|advantages|disadvantages|step by step|each step|in detail|\
               justify|argue|argument*|recommend|diagnos*|investigat*|root cause|cause|causes|\
               difference between|differences between|how would you|how do i fix|how can i fix|\
               what would|work out|figure out|essay|implication*|consequence*|hypothes*|paradox|\
               dilemma|ethic*|business plan|write a plan|create a plan|make a plan|plan for|\
               develop a|draft a|propose|weigh|versus|reason through|find the bug|fix the bug|\
               what is wrong|prioriti*|which is better|should we|should i|outline|simulate|migrate|\
               estimate how|how many ways",
        technical: "function|functions|script|scripts|code|program|algorithm*|python|java|javascript|\
               typescript|rust|golang|kotlin|swift|php|react|angular|vue|svelte|flutter|django|\
               laravel|node js|sql|postgres*|mysql|sqlite|mongodb|redis|kafka|docker|kubernetes|\
               linux|bash|nginx|aws|gcp|azure|api|apis|http|cors|server|servers|database*|schema*|\
               query|queries|regex|regular expression|deadlock*|race condition|concurren*|\
               thread safe|threads|cache|async*|json|yaml|csv|html|css|git|github|compil*|\
               stack trace|exception|segfault|undefined|null|array|recursi*|complexity|latency|\
               throughput|architecture|microservice*|equation*|integral|derivative|probabilit*|\
               matrix|theorem|statistic*|regression|revenue|margin|margins|churn|break even|budget|\
               forecast*|tax|taxes|liab*|contract|contracts|clause|clauses|legal*|gdpr|complian*|\
               risk|risks|conversion|experiment*|crash*|bug|bugs|error|production|deploy*|scal*|\
               backend|frontend|const|def|for each|physics|chemistry|molecul*|\
               quantum|philosoph*|claims|sales|costs|profit*",
        easy: "hi|hey|hello|good morning|good afternoon|good evening|thanks|thank you|thx|cheers|\
               bye|goodbye|see you|ok|okay|got it|great|perfect|no problem|open on|are you open|\
               opening hours|open today|open tomorrow|what time|you close|you open|translate|\
               how do you say|spelling|grammar mistakes|typo|typos|shorten|shorter|make this|\
               summarise|summarize|one sentence|rephrase|where is my|my order|my parcel|my package|\
               tracking|delivery address|shipping|do you ship|do you deliver|do you have|\
               do you sell|do you accept|can i pay|password|cancel my|cancel|unsubscribe|\
               phone number|email address|your address|how much is|how much does|how long does|\
               capital of|who wrote|who painted|who invented|when was|tell the customer|reply to|\
               tell them|let him know|let her know|in stock|sold out|size|colour|color|gift card*|\
               birthday|lovely|newsletter|invoice|receipt|please|happy|quick question|nice|\
               my husband|my wife|my daughter|my son|my sister|my mother",
    },
    Language {
        // German.
        hard: "warum|weshalb|wieso|beweis*|erklär*|erläuter*|vergleich*|analysier*|analyse|bewert*|\
               beurteil*|begründ*|argumentier*|entwirf|entwerf*|entwickle|konzipier*|konzept|plane|\
               planung|zeitplan|strateg*|optimier*|refaktor*|berechn*|löse|lösung*|rechenweg|\
               schritt für schritt|vorteile|nachteile|vor und nachteile|für und wider|abwäg*|wäge|\
               ursache*|woran liegt|fehler finden|untersuch*|diskutier*|kritisier*|leite her|\
               herleit*|unterschied zwischen|unterschiede|empfiehl*|empfehlung|lohnt sich|sinnvoll|\
               auswirkung*|folgen|konsequenz*|wie würdest|wie gehe ich vor|grenze ich|\
               schreibe eine funktion|schreib eine funktion|schreibe ein|erstelle|ausarbeit*|\
               schlage vor|schlage für|priorisier*|was wäre wenn",
        technical: "funktion|programm*|skript|quelltext|algorithm*|datenbank*|abfrage*|schnittstelle|\
               regulär*|fehlermeldung|absturz|stürzt ab|gleichung*|wahrscheinlich*|matrix|\
               statistik*|umsatz|marge|gewinn|haftung|steuer|steuern|steuerlich*|vertrag|vertrags*|\
               klausel*|gesetz*|rechtlich*|rechte|datenschutz*|risiko|risiken|kosten|budget|gmbh|\
               architektur|speicher|leistung|physik*|ethik|ethisch*|philosoph*|kündigungsfrist|\
               prozess*|einführung|umstellung|quote|hypothese*|kulanz*|beschwerde|deckungsbeitrag",
        easy: "hallo|guten morgen|guten tag|guten abend|servus|moin|danke|dankeschön|vielen dank|\
               tschüss|bis bald|bis dann|bis morgen|alles klar|passt|super|geöffnet|öffnungszeiten|\
               offen|macht ihr|schließt ihr|wann öffnet|übersetz*|was heißt|wie heißt|wie sagt man|\
               rechtschreibung|tippfehler|kürze|kürzer|wo ist|wo bleibt|mein paket|\
               meine bestellung|bestellung|lieferzeit|lieferung|versand|habt ihr|haben sie|\
               kann ich|was kostet|wie viel kostet|passwort|stornieren|abbestellen|telefonnummer|\
               adresse|auf rechnung|hauptstadt|wer hat|antworte|sag dem|dem kunden|größe|gutschein|\
               geburtstag|freundlich|bitte|freude|zufrieden|mein mann|meine frau|meine tochter|\
               mein sohn|enkel|nachbarin|newsletter|kurze frage",
    },
    Language {
        // French.
        hard: "pourquoi|prouve*|démontre*|démonstration|explique*|expliquer|compare*|comparer|\
               analyse*|analyser|évalue*|évaluer|justifi*|argument*|conçois|conçoi*|concevoir|\
               élabore*|établis un plan|un plan|planifi*|stratégie*|optimis*|refactor*|calcule*|\
               calculer|résous|résoudre|résou*|étape par étape|les étapes|en détaillant|avantages|\
               inconvénients|pour et contre|le pour et le contre|cause|causes|raison pour|\
               diagnosti*|discute*|critique*|différence entre|différences|recommande*|\
               vaut il mieux|conséquence*|implication*|comment la corriger|comment corriger|\
               comment faire pour|propose*|rédige une|rédige un|écris un script|écris une fonction|\
               que se passerait|paradoxe|thèse|dissertation|déduis",
        technical: "fonction|programme|script|algorithm*|base de données|requête*|serveur|erreur|bogue|\
               équation*|probabilit*|matrice|statistique*|chiffre d affaires|marge|bénéfice|\
               rentab*|impôt*|fiscal*|contrat|clause|loi|juridique*|droits|responsabilité|rgpd|\
               risque*|coût|coûts|budget|architecture|complexité|physique|éthique|philosoph*|\
               indicateurs|réclamation|capital|prêt|placer|hypothèse*|taux|déploiement|théor*|\
               objectifs",
        easy: "bonjour|bonsoir|salut|coucou|merci|au revoir|à bientôt|bonne journée|d accord|\
               parfait|ouvert|ouverts|ouvrez|fermez|horaires|à quelle heure|traduis|traduire|\
               comment dit on|orthographe|corrige les fautes|raccourcis|plus court|où est|\
               où en est|ma commande|mon colis|livraison|avez vous|acceptez vous|vendez vous|\
               auriez vous|combien coûte|mot de passe|annuler|me connecter|désabonner|téléphone|\
               adresse|en stock|rupture|capitale|qui a écrit|qui a peint|réponds à|réponds au|\
               dis au client|dis à|taille|anniversaire|s il vous plaît|grand merci|ma fille|\
               mon fils|mon mari|ma femme|voisins|puis je",
    },
    Language {
        // Spanish.
        hard: "por qué|porqué|demuestra*|demostr*|explica*|explícame|compara*|analiza*|análisis|\
               evalúa*|evaluar|justifica*|argument*|razona*|diseña*|elabora*|planifica*|un plan|\
               estrategia*|optimiza*|refactoriza*|calcula*|resuelve*|resolver|paso a paso|ventajas|\
               desventajas|inconvenientes|pros y contras|a favor y en contra|causas|causa|\
               diagnostica*|investiga*|discute*|critica*|diferencia entre|diferencias|recomienda*|\
               recomendación|conviene|consecuencia*|implicacion*|cómo lo depuro|cómo lo arreglo|\
               cómo lo soluciono|propón|propuesta|redacta una|escribe una función|\
               escribe una consulta|escribe un programa|escribe un script|qué pasaría|paradoja|\
               ensayo|hipótesis|pondera*|deduce|cómo mido",
        technical: "función|programa|script|código|algoritmo*|base de datos|consulta sql|consultas|\
               servidor|error|ecuación|ecuaciones|probabilidad*|matriz|estadística*|integral|\
               ingresos|margen|beneficio*|rentab*|impuesto*|fiscal*|contrato|cláusula*|ley|legal*|\
               derechos|responsabilidad*|riesgo*|costes|costos|presupuesto|arquitectura|\
               complejidad|física|ética|filosof*|molecular|producción|memoria|punto de equilibrio|\
               usuarios|registro|pruebas|sistema|abandone|tasa",
        easy: "hola|buenos días|buenas tardes|buenas noches|buenas|gracias|adiós|hasta luego|\
               un saludo|vale|listo|perfecto|abren|cierran|horario|a qué hora|traduce|traducir|\
               cómo se dice|ortografía|acorta|más corto|dónde está|mi pedido|mi paquete|pedido|\
               envío|tienen|aceptan|venden|reparten|cuánto cuesta|cuánto tarda|contraseña|cancelar|\
               darme de baja|teléfono|dirección|talla|disponible|capital de|quién escribió|\
               quién pintó|responde al|dile|por favor|cumpleaños|felicitar*|mi hija|mi hijo|\
               mi abuela|mi madre|mi hermana|vecinas|tarjeta",
    },
    Language {
        // Portuguese.
        hard: "por que|porque razão|prove|provar|demonstre|explique*|explica*|compare|comparar|\
               analise|analisar|avalie|avaliar|justifique|argument*|projete|projetar|elabore|\
               desenvolva|planeje|monte um|cronograma|um plano|estratégia*|otimiz*|refator*|\
               calcule|calcular|resolva|resolver|passo a passo|os passos|vantagens|desvantagens|\
               prós e contras|causas|causa|diagnostique|investig*|discuta|critique|diferença entre|\
               diferenças|recomende|vale a pena|compensa|consequência*|implicações|como resolver|\
               como corrigir|proponha|redija|escreva uma função|escreva um programa|\
               escreva um script|o que aconteceria|paradoxo|hipótese*|pondere|devo|deduza|\
               identifique",
        technical: "função|programa|script|código|algoritmo*|banco de dados|base de dados|consulta|\
               servidor|erro|equação|equações|probabilidade*|matriz|estatística*|receita|\
               faturamento|margem|lucro|imposto*|tributár*|contrato|cláusula*|lei|legal|jurídic*|\
               direitos|responsabilidade*|risco*|custos|custo|orçamento|arquitetura|complexidade|\
               física|ética|éticas|filosof*|dependências|usuários|falha|falhas|modelo|reclamação|\
               sistema|contingência|filas|investir|contratar|precificação|correlação",
        easy: "oi|olá|bom dia|boa tarde|boa noite|obrigado|obrigada|valeu|tchau|até mais|até logo|\
               tá bom|beleza|certo|abrem|fecham|horário|que horas|traduza|traduzir|como se diz|\
               ortografia|corrija a ortografia|encurte|onde está|cadê|meu pedido|minha encomenda|\
               encomenda|entrega|prazo de entrega|vocês têm|vocês fazem|tem esse|aceitam|vendem|\
               quanto custa|senha|cancelar|telefone|endereço|tamanho|disponível|capital da|\
               capital do|quem escreveu|quem pintou|responda ao|diga ao|por favor|aniversário|\
               tudo bem|minha filha|meu filho|minha esposa|meu marido|agradecer|deu certo",
    },
    Language {
        // Italian.
        hard: "perché|dimostra*|dimostrazione|spiega*|confronta*|paragona*|analizza*|analisi|\
               valuta*|giustifica*|argomenta*|progetta*|elabora*|pianifica*|un piano|strategia*|\
               ottimizz*|rifattorizz*|calcola*|risolvi|risolvere|passo dopo passo|passo per passo|\
               i passaggi|vantaggi|svantaggi|pro e contro|cause|causa|diagnostic*|discuti|critica*|\
               differenza tra|differenze|consiglia*|conviene|conseguenz*|implicazion*|\
               come la ottimizzo|come lo risolvo|come si risolve|proponi|redigi|\
               scrivi una funzione|scrivi una classe|scrivi un programma|scrivi uno script|\
               paradosso|saggio|ipotesi|deduci|come si generalizza|cosa succederebbe|verificar*|\
               fasi",
        technical: "funzione|programma|script|codice|algoritm*|database|query|server|errore|equazion*|\
               disequazion*|probabilità|matrice|statistic*|ricavi|fatturato|margine|utile|\
               commission*|imposta|imposte|tasse|fiscal*|contratto|clausol*|legge|legal*|diritti|\
               responsabilità|rischi|rischio|costi|budget|architettura|complessità|fisica|chimica|\
               etica|filosof*|sistema|tabelle|gestionale|classe|mercato|ammortament*",
        easy: "ciao|buongiorno|buonasera|salve|grazie|arrivederci|a presto|a domani|va bene|\
               perfetto|ci sentiamo|aperti|aprite|chiudete|orari|a che ora|traduci|tradurre|\
               come si dice|ortografia|accorcia|dov è|dove è|il mio ordine|il mio pacco|ordine|\
               spedizione|consegna|avete|accettate|vendete|quanto costa|disdire|annullare|telefono|\
               indirizzo|taglia|disponibile|capitale|chi ha scritto|chi ha dipinto|rispondi al|\
               scrivi al cliente|di al cliente|per favore|compleanno|ringraziar*|mia figlia|\
               mio figlio|mio marito|mia moglie|suocera|felicissimi",
    },
    Language {
        // Russian.
        hard: "почему|зачем|докаж*|доказ*|объясн*|поясни|сравни*|сравнен*|проанализ*|анализ*|оцени|\
               оценить|оценка|обоснуй*|аргумент*|спроектир*|разработ*|составь план|составь|план|\
               стратеги*|оптимиз*|отрефактор*|перепиши функц*|рассчитай*|вычисли*|посчитай|реши|\
               решить|решени*|по шагам|пошагов*|преимуществ*|недостатк*|плюсы и минусы|за и против|\
               причин*|диагност*|исследу*|обсуди*|критик*|разниц*|отличи*|отличается|порекоменд*|\
               стоит ли|выгодно ли|последств*|как исправить|как найти|как решить|предложи|\
               напиши функцию|напиши скрипт|напиши программу|напиши код|парадокс|эссе|гипотез*|\
               выведи|что будет если|как перевезти|рассуд*|выдели|этапы",
        technical: "функци*|программ*|скрипт*|код|алгоритм*|баз данных|базы данных|базу данных|запрос*|\
               сервер*|ошибк*|уравнен*|вероятност*|матриц*|статистик*|выручк*|прибыл*|маржа|марж*|\
               наценк*|налог*|договор*|пункт договора|закон*|юридич*|прав потреб*|ответственност*|\
               риск*|затрат*|бюджет*|архитектур*|сложност*|физик*|этик*|философ*|приложение падает|\
               сборк*|жалоб*|претензи*|компенсаци*|нагрузк*|пользовател*|поток*|систем*",
        easy: "привет|здравствуйте|добрый день|добрый вечер|доброе утро|спасибо|благодар*|\
               до свидания|пока|ок|хорошо|понял|поняла|ясно|вы работаете|часы работы|во сколько|\
               переведи|перевести|как будет|исправь ошибки|орфограф*|опечатк*|сократи|короче|\
               где мой|мой заказ|заказ|посылк*|доставк*|есть ли|сколько стоит|можно оплатить|\
               пароль|отменить|отписаться|телефон|адрес|размер|в наличии|столица|кто написал|\
               кто нарисовал|ответь клиенту|напиши клиенту|скажи клиенту|пожалуйста|день рождения|\
               подскажите|моя дочь|внучк*|соседи|муж|жена|личный кабинет|вежлив*",
    },
    Language {
        // Chinese.
        hard: "为什么|为何|证明|解释|说明|比较|对比|分析|评估|评价|论述|论证|讨论|设计|制定|规划|\
               计划|方案|策略|优化|重构|计算|求解|解方程|步骤|推理|推导|利弊|优缺点|正反|原因|排查|\
               定位|诊断|区别|差异|建议|推荐|影响|后果|如何解决|怎么解决|怎么办|写一个|编写|实现|\
               悖论|假设|预测|权衡|哪个更好|怎么分|论据|原理|提出",
        technical: "函数|程序|脚本|代码|算法|数据库|查询|服务器|报错|错误|线程|缓存|并发|接口|方程|概率|\
               矩阵|统计|收入|利润|成本|预算|风险|税|合同|条款|法律|责任|赔偿|架构|复杂度|物理|\
               伦理|哲学|量子|系统|部署|转化率|投诉|索引|内存|表结构|数据|论文",
        easy: "你好|您好|在吗|谢谢|感谢|再见|拜拜|好的|明白了|知道了|营业|几点|开门|关门|翻译|\
               用英语怎么说|怎么说|错别字|我的订单|订单|快递|发货|运费|有货|现货|有没有|多少钱|\
               可以用|支付|密码|取消|电话|地址|尺码|颜色|首都|作者是谁|谁写|回复顾客|回复客户|\
               回复客人|告诉客户|请问|生日|高兴|奶奶|爷爷|妈妈|爸爸|孩子|邻居|喜欢|顺便问",
    },
    Language {
        // Japanese.
        hard: "なぜ|何故|どうして|証明|説明|比較|分析|評価|検討|論じ|議論|設計|計画|戦略|最適化|\
               リファクタ|計算|解いて|解け|途中の式|手順|段階|推論|導出|利点|欠点|メリット|\
               デメリット|長所|短所|原因|調査|診断|違い|提案|推奨|影響|直し方|解決|対応案|\
               考えてください|作成して|実装|矛盾|仮説|予測|べきか|どちらが|仕組み",
        technical: "関数|プログラム|スクリプト|コード|アルゴリズム|データベース|クエリ|サーバ|エラー|\
               スレッド|キャッシュ|並行|方程式|確率|行列|統計|売上|利益|費用|予算|コスト|リスク|税|\
               契約|条項|法律|責任|苦情|アーキテクチャ|計算量|物理|倫理|哲学|量子|システム|\
               インデックス|テスト|指標|運用|自動化|制度|状態",
        easy: "こんにちは|こんばんは|おはよう|はじめまして|お世話になって|ありがとう|感謝|\
               失礼します|さようなら|了解|わかりました|承知|営業|何時|開いて|閉まり|訳して|翻訳|\
               英語で|何と言い|誤字|短くして|注文番号|荷物|配送|送料|届き|ありますか|いくら|\
               できますか|パスワード|キャンセル|電話番号|住所変更|サイズはあり|首都|作者|誰です|\
               お客様に|伝えてください|返信してください|誕生日|喜んで|家族|子ども|祖母|予約はいつ|\
               いただき",
    },
    Language {
        // Arabic.
        hard: "لماذا|أثبت|برهن|اشرح|شرح|فسر|وضح|توضيح|قارن|مقارنة|حلل|تحليل|قيّم|قيم|تقييم|ناقش|\
               برر|جادل|صمم|تصميم|خطة|خطط|استراتيجية|حسن الأداء|أعد هيكلة|احسب|يحسب|حل المعادلة|حل|\
               خطوات|الخطوات|خطوة بخطوة|مزايا|عيوب|إيجابيات|سلبيات|أسباب|السبب|سبب|شخص|الفرق بين|\
               فرق|انصح|اقترح|تأثير|آثار|عواقب|كيف أصلح|كيف أعرف|كيف تقيس|كيف أحل|اكتب برنامجا|\
               اكتب دالة|اكتب كود|اكتب برنامج|مفارقة|فرضية|استنتج|جدوى|ماذا لو|حدد",
        technical: "دالة|برنامج|برمجة|كود|خوارزمية|قاعدة بيانات|قواعد البيانات|استعلام|خادم|خطأ|معادلة|\
               احتمال|مصفوفة|إحصاء|إيرادات|أرباح|ربح|هامش|تكلفة|تكاليف|ميزانية|بميزانية|مخاطر|\
               ضريبة|ضرائب|عقد|بند|قانون|قانونية|حقوق|مسؤولية|تعويض|تعويضا|شكوى|نظام|بايثون|\
               جافاسكريبت|تطبيق|فيزياء|أخلاق|فلسفة|علميا|المبيعات|مبيعات|المخزون|بيانات",
        easy: "مرحبا|أهلا|السلام عليكم|صباح الخير|مساء الخير|شكرا|أشكركم|مع السلامة|إلى اللقاء|\
               تمام|حسنا|تعملون|تفتحون|تغلقون|متى|ساعات العمل|ترجم|كيف نقول|صحح|الإملائية|أين طلبي|\
               طلبي|شحنتي|أين وصلت|التوصيل|هل يتوفر|هل لديكم|هل عندكم|كم سعر|بكم|الدفع|كلمة المرور|\
               إلغاء|رقم الهاتف|العنوان|بمقاس|مقاس|متوفر|عاصمة|من كتب|من رسم|أخبر العميل|رد على|\
               من فضلك|لو سمحت|عيد ميلاد|سعداء|جدتي|أولادي|والدتي|أختي",
    },
];
