"""Purchases at Stripe, whose events are signed by Stripe's own library: the other side of what the gateway checks."""

import json
import random
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import gateway
import stripe

SECRET = "whsec_0123456789abcdef0123456789"
RK = "rk_test_0123456789"
KEK = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="


class Account:
    """A seller's account at Stripe: its objects and its events."""

    def __init__(self):
        self.objects, self.events = {}, []
        account = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                place = urlsplit(self.path).path.removeprefix("/v1/")
                empty = {"object": "list", "data": [], "has_more": False}
                found = account.objects.get(place) or (empty if place in ("events", "disputes") else None)
                status = 401 if self.headers["authorization"] != f"Bearer {RK}" else 200 if found else 404
                body = json.dumps(found if status == 200 else {"error": {"code": "resource_missing"}}).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def sell(self, name):
        session, intent, charge = f"cs_test_{name}", f"pi_{name}", f"ch_{name}"
        self.objects[f"charges/{charge}"] = {
            "id": charge, "object": "charge", "created": int(time.time()), "livemode": False, "refunded": False,
            "disputed": False, "payment_intent": intent, "customer": None, "invoice": None,
        }
        self.objects[f"payment_intents/{intent}"] = {
            "id": intent, "object": "payment_intent", "latest_charge": charge, "livemode": False,
        }
        self.objects[f"checkout/sessions/{session}"] = {
            "id": session, "object": "checkout.session", "livemode": False, "mode": "payment", "status": "complete",
            "payment_status": "paid", "payment_intent": intent, "subscription": None, "customer": None,
            "line_items": {"object": "list", "data": [{"object": "item", "price": {"id": "price_pro"}}]},
        }
        return session

    def event(self, kind, place):
        """As the webhook has it: indented, as Stripe writes it, so that only the raw body fits its signature."""
        event = {
            "id": f"evt_{len(self.events):06}", "object": "event", "api_version": "2025-02-24.acacia",
            "created": int(time.time()), "livemode": False, "pending_webhooks": 1, "type": kind,
            "data": {"object": self.objects[place]},
        }
        self.events.append(event)
        return json.dumps(event, indent=2, ensure_ascii=False)


def signed(body, secret=SECRET, at=None, scheme="v1"):
    """A header of Stripe's library, which must take it itself."""
    at = int(time.time()) if at is None else at
    signature = stripe.WebhookSignature._compute_signature(f"{at}.{body}", secret)
    return f"t={at},{scheme}={signature}"


class Purchases(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.account = Account()
        selling = {
            "api_key": "env:STRIPE_RK", "webhook_secret": "env:STRIPE_SECRET", "base_url": cls.account.url,
            "prices": {"price_pro": "pro"},
        }
        config = {
            "vault": {"kek": "env:STRIPE_TEST_KEK"},
            "licenses": {"sources": [{"issued": {"prefix": "JSTAR", "stripe": selling}}]},
            "plans": {"pro": {"messages": "10/month", "tokens": "100000/month", "models": ["*"]}},
            "providers": {"stand-in": {"base_url": "stand-in"}},
            "models": {"fast": ["stand-in/small"]},
        }
        env = {"STRIPE_TEST_KEK": KEK, "STRIPE_RK": RK, "STRIPE_SECRET": SECRET}
        cls.gateway = gateway.Gateway(config, env)

    @classmethod
    def tearDownClass(cls):
        cls.gateway.stop()
        cls.account.server.shutdown()
        cls.account.server.server_close()

    def send(self, body, header):
        headers = {"stripe-signature": header, "content-type": "application/json; charset=utf-8"}
        return gateway.ask(f"{self.gateway.url}/webhooks/stripe", body, headers)[0]

    def licences(self):
        status, text = gateway.ask(f"{self.gateway.admin}/api/licenses/list", "{}", {"content-type": "application/json"})
        self.assertEqual(status, 200, text)
        return json.loads(text)["licenses"]

    def test_the_library_and_the_gateway_take_the_same_signatures(self):
        before = len(self.licences())
        session = self.account.sell("signed0001")
        body = self.account.event("checkout.session.completed", f"checkout/sessions/{session}")
        now = int(time.time())
        good = signed(body)
        other = signed(body, "whsec_ffffffffffffffffffffffffffff").split(",")[1]
        headers = {
            good: True,
            # While a secret rolls there are two.
            f"{good},{other}": True,
            f"t={now},{other},{signed(body, at=now).split(',')[1]}": True,
            f"{good},v0={'0' * 64}": True,
            signed(body, at=now - 290): True,
            signed(body, at=now - 310): False,
            signed(body, "whsec_ffffffffffffffffffffffffffff"): False,
            signed(body.replace("\n", "")): False,
            signed(body, scheme="v0"): False,
            f"t={now + 1},{good.split(',')[1]}": False,
            good.split(",")[1]: False,
            "": False,
        }
        for header, is_good in headers.items():
            with self.subTest(header=header):
                try:
                    stripe.WebhookSignature.verify_header(body, header, SECRET, tolerance=300)
                    taken = True
                except stripe.SignatureVerificationError:
                    taken = False
                self.assertEqual(taken, is_good, "Stripe's library")
                self.assertEqual(self.send(body, header), 200 if is_good else 401, "the gateway")
        self.assertEqual(len(self.licences()), before + 1, "one session, one licence")

    def test_purchases_and_refunds_in_any_order(self):
        before = {one["license"] for one in self.licences()}
        noise, events, good = random.Random(7), [], 0
        for number in range(30):
            session = self.account.sell(f"any{number:07}")
            paid = f"checkout/sessions/{session}"
            sent = [self.account.event("checkout.session.completed", paid)]
            if number % 3 == 0:
                charge = f"charges/ch_any{number:07}"
                self.account.objects[charge]["refunded"] = True
                sent.append(self.account.event("charge.refunded", charge))
            else:
                good += 1
            events += sent * 2
        noise.shuffle(events)
        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(lambda body: self.send(body, signed(body)), events))
        self.assertEqual(set(statuses), {200})
        made = [one for one in self.licences() if one["license"] not in before]
        self.assertEqual(len([one for one in made if one["state"] == "active"]), good, made)
        self.assertLessEqual(len(made), 30, "no licence twice")


if __name__ == "__main__":
    unittest.main()
