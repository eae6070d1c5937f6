"""The SDKs for Python against the demo: what a newcomer types after `make run`. Those for JavaScript are beside this folder."""

import asyncio
import unittest

import gateway  # first: it keeps the SDKs from asking other hosts
from gateway import KEY, PIXEL, PROMPT, REFUSED, SAID, UNKNOWN

import anthropic
import instructor
import litellm
import openai
from agents import Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool
from google import genai
from google.genai import types
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field
from pydantic_ai import Agent as PydanticAgent
from pydantic_ai.models.google import GoogleModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel as PydanticResponses
from pydantic_ai.providers.google import GoogleProvider
from pydantic_ai.providers.openai import OpenAIProvider

MESSAGES = [{"role": "user", "content": PROMPT}]


litellm.suppress_debug_info = True


class Parcel(BaseModel):
    """A parcel on its way."""

    order: str
    days: int = Field(ge=2, le=9)


demo = None


def setUpModule():
    global demo
    demo = gateway.Demo()


def tearDownModule():
    demo.stop()


class SdkTest(unittest.TestCase):
    def fits(self, parcel):
        parcel = parcel if isinstance(parcel, dict) else parcel.model_dump()
        self.assertIsInstance(parcel["order"], str)
        self.assertIn(parcel["days"], range(2, 10))

    def refuses(self, kind, call):
        """The gateway's own sentence reaches the app, and is asked for once."""
        with self.assertRaises(kind) as caught:
            call()
        self.assertIn(REFUSED, str(caught.exception))


class OpenAi(SdkTest):
    def client(self, key=KEY):
        return openai.OpenAI(base_url=demo.v1, api_key=key)

    def test_chat_stream_tools_schema_image(self):
        chat = self.client().chat.completions
        self.assertIn(SAID, chat.create(model="fast", messages=MESSAGES).choices[0].message.content)
        stream = chat.create(model="fast", messages=MESSAGES, stream=True, stream_options={"include_usage": True})
        chunks = list(stream)
        self.assertIn(SAID, "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices))
        self.assertGreater(chunks[-1].usage.completion_tokens, 5)
        self.fits(chat.parse(model="fast", messages=MESSAGES, response_format=Parcel).choices[0].message.parsed)
        tools = [openai.pydantic_function_tool(Parcel)]
        asked = chat.parse(model="fast", messages=MESSAGES, tools=tools).choices[0].message
        self.fits(asked.tool_calls[0].function.parsed_arguments)
        result = {"role": "tool", "tool_call_id": asked.tool_calls[0].id, "content": "at sea"}
        answer = chat.create(model="fast", messages=[*MESSAGES, asked.model_dump(exclude_none=True), result], tools=tools)
        self.assertIn('The tool said: "at sea"', answer.choices[0].message.content)
        image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
        seen = chat.create(model="fast", messages=[{"role": "user", "content": [{"type": "text", "text": PROMPT}, image]}])
        self.assertIn("One image came along", seen.choices[0].message.content)

    def test_responses_stream_schema(self):
        responses = self.client().responses
        self.assertIn(SAID, responses.create(model="fast", input=PROMPT).output_text)
        with responses.stream(model="fast", input=PROMPT) as stream:
            said = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
            self.assertIn(SAID, said)
            self.assertIn(SAID, stream.get_final_response().output_text)
        self.fits(responses.parse(model="fast", input=PROMPT, text_format=Parcel).output_parsed)

    def test_embeddings_models_refusals(self):
        client = self.client()
        vectors = client.embeddings.create(model="fast", input=["a", "b"]).data
        self.assertEqual(len(vectors), 2)
        self.assertGreater(len(vectors[0].embedding), 8)
        self.assertIn("fast", [model.id for model in client.models.list()])
        self.assertEqual(client.models.retrieve("fast").id, "fast")
        self.refuses(openai.PermissionDeniedError, lambda: self.client(UNKNOWN).chat.completions.create(model="fast", messages=MESSAGES))


class AnthropicSdk(SdkTest):
    def test_message_stream_tools_count_refusal(self):
        client = anthropic.Anthropic(base_url=demo.url, api_key=KEY)
        ask = {"model": "fast", "max_tokens": 500, "messages": MESSAGES}
        self.assertIn(SAID, client.messages.create(**ask).content[0].text)
        with client.messages.stream(**ask) as stream:
            self.assertIn(SAID, "".join(stream.text_stream))
            self.assertGreater(stream.get_final_message().usage.output_tokens, 5)
        tools = [{"name": "find", "description": "finds", "input_schema": Parcel.model_json_schema()}]
        called = client.messages.create(**ask, tools=tools)
        self.assertEqual(called.stop_reason, "tool_use")
        self.fits(called.content[0].input)
        self.assertGreater(client.messages.count_tokens(model="fast", messages=MESSAGES).input_tokens, 3)
        other = anthropic.Anthropic(base_url=demo.url, api_key=UNKNOWN)
        self.refuses(anthropic.PermissionDeniedError, lambda: other.messages.create(**ask))


class GoogleGenAi(SdkTest):
    def client(self, key=KEY, **options):
        return genai.Client(api_key=key, http_options=types.HttpOptions(base_url=demo.url, **options))

    def test_content_stream_tools_schema_refusal(self):
        for options in [{}, {"api_version": "v1beta"}, {"api_version": "v1"}]:
            with self.subTest(options):
                client = self.client(**options)  # what is no longer named is closed
                models = client.models
                ask = {"model": "fast", "contents": PROMPT}
                self.assertIn(SAID, models.generate_content(**ask).text)
                self.assertIn(SAID, "".join(chunk.text or "" for chunk in models.generate_content_stream(**ask)))
                config = types.GenerateContentConfig(response_mime_type="application/json", response_schema=Parcel)
                self.fits(models.generate_content(**ask, config=config).parsed)
                asked = types.FunctionDeclaration(name="find", parameters_json_schema=Parcel.model_json_schema())
                config = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[asked])])
                self.fits(models.generate_content(**ask, config=config).function_calls[0].args)
        other = self.client(UNKNOWN)
        self.refuses(genai.errors.ClientError, lambda: other.models.generate_content(model="fast", contents=PROMPT))


class LangChain(SdkTest):
    def test_invoke_stream_tools_schema_embeddings(self):
        chat = ChatOpenAI(base_url=demo.v1, api_key=KEY, model="fast", max_retries=0)
        self.assertIn(SAID, chat.invoke(PROMPT).content)
        self.assertIn(SAID, "".join(chunk.content for chunk in chat.stream(PROMPT)))
        self.fits(chat.with_structured_output(Parcel).invoke(PROMPT))

        @tool
        def find(order: str) -> str:
            """Finds a parcel."""
            return order

        self.assertEqual(chat.bind_tools([find]).invoke(PROMPT).tool_calls[0]["name"], "find")
        # With the check it sends token arrays, and fetches a vocabulary from another host to make them.
        embeddings = OpenAIEmbeddings(base_url=demo.v1, api_key=KEY, model="fast", check_embedding_ctx_length=False)
        self.assertEqual(len(embeddings.embed_documents(["a", "b"])), 2)
        other = ChatOpenAI(base_url=demo.v1, api_key=UNKNOWN, model="fast")
        self.refuses(openai.PermissionDeniedError, lambda: other.invoke(PROMPT))


class LiteLlm(SdkTest):
    def test_three_dialects_stream_embedding_refusal(self):
        bases = {"openai": demo.v1, "anthropic": demo.url, "gemini": f"{demo.url}/v1beta"}
        for name, base in bases.items():
            with self.subTest(name):
                ask = {"model": f"{name}/fast", "api_base": base, "api_key": KEY, "messages": MESSAGES}
                self.assertIn(SAID, litellm.completion(**ask).choices[0].message.content)
                stream = litellm.completion(**ask, stream=True)
                self.assertIn(SAID, "".join(chunk.choices[0].delta.content or "" for chunk in stream))
        vectors = litellm.embedding(model="openai/fast", api_base=demo.v1, api_key=KEY, input=["a"], encoding_format="float")
        self.assertEqual(len(vectors.data), 1)
        ask = {"model": "openai/fast", "api_base": demo.v1, "messages": MESSAGES}
        self.refuses(Exception, lambda: litellm.completion(**ask, api_key=UNKNOWN))


class OpenAiAgents(SdkTest):
    def test_an_agent_calls_its_tool(self):
        asked = []

        @function_tool
        def find(order: str) -> str:
            """Finds a parcel."""
            asked.append(order)
            return "at sea"

        client = openai.AsyncOpenAI(base_url=demo.v1, api_key=KEY)
        for model in [OpenAIChatCompletionsModel("fast", client), OpenAIResponsesModel("fast", client)]:
            with self.subTest(type(model).__name__):
                agent = Agent(name="parcels", instructions="Find it.", model=model, tools=[find])
                result = asyncio.run(Runner.run(agent, PROMPT))
                self.assertIn('The tool said: "at sea"', result.final_output)
        self.assertEqual(len(asked), 2)


class Instructor(SdkTest):
    def test_a_schema_by_tool_and_by_json(self):
        for mode in [instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA]:
            with self.subTest(mode):
                client = instructor.from_openai(openai.OpenAI(base_url=demo.v1, api_key=KEY), mode=mode)
                self.fits(client.chat.completions.create(model="fast", messages=MESSAGES, response_model=Parcel))


class PydanticAi(SdkTest):
    def test_text_and_output_with_openai_and_google(self):
        over_openai = OpenAIProvider(base_url=demo.v1, api_key=KEY)
        google = GoogleProvider(client=GoogleGenAi.client(self))
        models = [
            OpenAIChatModel("fast", provider=over_openai),
            PydanticResponses("fast", provider=over_openai),
            GoogleModel("fast", provider=google),
        ]

        async def ask(model):
            said = await PydanticAgent(model).run(PROMPT)
            found = await PydanticAgent(model, output_type=Parcel).run(PROMPT)
            return said.output, found.output

        for model in models:
            with self.subTest(type(model).__name__):
                said, parcel = asyncio.run(ask(model))
                self.assertIn(SAID, said)
                self.fits(parcel)


if __name__ == "__main__":
    unittest.main()
