"""Stands for a person's browser that has a session: opens the page and submits the form that comes back.

PERSON_ADDS is what the person clicks, as the page would add it to the address.
"""

import html.parser
import os
import sys

import requests


class Form(html.parser.HTMLParser):
    """The only form of a page."""

    def __init__(self):
        super().__init__()
        self.action, self.members = None, {}

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag == "form":
            self.action = found["action"]
        if tag == "input":
            self.members[found["name"]] = found["value"]


page = requests.get(sys.argv[1] + os.environ.get("PERSON_ADDS", ""), timeout=30)
page.raise_for_status()
form = Form()
form.feed(page.text)
requests.post(form.action, data=form.members, timeout=30).raise_for_status()
