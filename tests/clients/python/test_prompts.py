"""Each SDK for Python asks a prompt of the gateway in a way it can. Those for JavaScript: ../prompts.test.js."""

import asyncio
import json
import unittest

import gateway  # first: it keeps the SDKs from asking other hosts
from gateway import PROMPT

import anthropic
import instructor
import litellm
import openai
from agents import Agent, OpenAIChatCompletionsModel, Runner
from google import genai
from google.genai import types
from langchain_openai import ChatOpenAI
from pydantic_ai import Agent as PydanticAgent
from pydantic_ai.models.google import GoogleModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.google import GoogleProvider
from pydantic_ai.providers.openai import OpenAIProvider

KEY = "JSTAR-PROMPTS-0001"
SHOP = "Ann's shop"
VARIABLES = {"shop": SHOP, "language": "German"}
SYSTEM = json.dumps(VARIABLES)
MODEL = "prompt/reply"
MESSAGES = [{"role": "developer", "content": SYSTEM}, {"role": "user", "content": PROMPT}]

CONFIG = {
    "licenses": {"sources": [{"static": {"keys": [{"key": KEY, "plan": "all"}]}}]},
    "plans": {"all": {"prompts": ["reply"], "prompts_only": True}},
    "providers": {
        "stand-in": {"base_url": "stand-in"},
        "stand-in-anthropic": {"base_url": "stand-in", "dialect": "anthropic"},
        "stand-in-gemini": {"base_url": "stand-in", "dialect": "gemini"},
    },
    "models": {"fast": ["stand-in/small", "stand-in-anthropic/small", "stand-in-gemini/small"]},
    "prompts": {
        "reply": {
            "model": "fast",
            "system": "You answer for {{shop}} in {{language}}.",
            "input": {
                "shop": {"max": 80, "required": True},
                "language": {"one_of": ["English", "German"]},
                "history": {"turns": 4, "max": 400},
            },
            # What SDKs send by themselves is below it.
            "max_output_tokens": 8192,
        },
    },
}

running = None


def setUpModule():
    global running
    running = gateway.Gateway(CONFIG)


def tearDownModule():
    running.stop()


class PromptTest(unittest.TestCase):
    def said(self, text):
        """The stand-in says what the user said, which the value of the variable is part of."""
        self.assertIn("stand-in provider", text)
        self.assertIn(SHOP, text)

    def client(self):
        return openai.OpenAI(base_url=running.v1, api_key=KEY)

    def test_openai(self):
        chat = self.client().chat.completions
        self.said(chat.create(model=MODEL, messages=MESSAGES).choices[0].message.content)
        stream = chat.create(model=MODEL, messages=MESSAGES, stream=True)
        self.said("".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices))
        responses = self.client().responses
        self.said(responses.create(prompt={"id": "reply", "variables": VARIABLES}, input=PROMPT).output_text)
        with self.assertRaises(openai.PermissionDeniedError) as caught:
            chat.create(model="fast", messages=MESSAGES[1:])
        self.assertEqual(caught.exception.code, "prompt_required")

    def test_anthropic(self):
        client = anthropic.Anthropic(base_url=running.url, api_key=KEY)
        ask = {"model": MODEL, "max_tokens": 200, "system": SYSTEM, "messages": MESSAGES[1:]}
        self.said(client.messages.create(**ask).content[0].text)
        with client.messages.stream(**ask) as stream:
            self.said("".join(stream.text_stream))

    def google(self):
        return genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=running.url))

    def test_google_genai(self):
        client = self.google()  # what is no longer named is closed
        config = types.GenerateContentConfig(system_instruction=SYSTEM)
        self.said(client.models.generate_content(model=f"models/{MODEL}", contents=PROMPT, config=config).text)

    def test_langchain(self):
        chat = ChatOpenAI(base_url=running.v1, api_key=KEY, model=MODEL, max_retries=0)
        self.said(chat.invoke([("system", SYSTEM), ("human", PROMPT)]).content)

    def test_litellm(self):
        messages = [{"role": "system", "content": SYSTEM}, MESSAGES[1]]
        for name, base in {"openai": running.v1, "anthropic": running.url}.items():
            with self.subTest(name):
                ask = {"model": f"{name}/{MODEL}", "api_base": base, "api_key": KEY, "messages": messages, "max_tokens": 200}
                self.said(litellm.completion(**ask).choices[0].message.content)

    def test_openai_agents(self):
        client = openai.AsyncOpenAI(base_url=running.v1, api_key=KEY)
        agent = Agent(name="parcels", instructions=SYSTEM, model=OpenAIChatCompletionsModel(MODEL, client))
        self.said(asyncio.run(Runner.run(agent, PROMPT)).final_output)

    def test_instructor(self):
        # Its schemas are the app's own, which a prompt does not take; without one it asks as the SDK does.
        client = instructor.from_openai(self.client())
        answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, response_model=None)
        self.said(answer.choices[0].message.content)

    def test_pydantic_ai(self):
        google = self.google()
        models = [
            OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=running.v1, api_key=KEY)),
            GoogleModel(f"models/{MODEL}", provider=GoogleProvider(client=google)),
        ]
        for model in models:
            with self.subTest(type(model).__name__):
                self.said(asyncio.run(PydanticAgent(model, system_prompt=SYSTEM).run(PROMPT)).output)


if __name__ == "__main__":
    unittest.main()
