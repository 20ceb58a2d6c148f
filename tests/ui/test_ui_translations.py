"""The translators' template is complete, and JupyterLab shows translations."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from pathlib import Path

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from jupyterlab_server.translation_utils import translator
from playwright.sync_api import expect

ROOT = Path(__file__).parents[2]
SCHEMA = "labextension/schema/plugin.json"
DOMAIN = "eaf_inference"
TEMPLATE = f"{DOMAIN}/locale/{DOMAIN}.pot"
_SCHEMA = """async ([url, token]) => {
  const answer = await fetch(url, { headers: { Authorization: `token ${token}` } });
  return (await answer.json()).schema;
}"""
PACK = "jupyterlab_language_pack_de_DE"


class Recorder:
    """A translator that records its lookups."""

    def __init__(self) -> None:
        self.asked = set()

    def pgettext(self, context, text):
        self.asked.add((context, text))
        return text


def catalogue():
    return read_po(io.BytesIO((ROOT / TEMPLATE).read_bytes()), locale="de_DE", domain=DOMAIN)


def test_the_template_has_every_translated_string_of_the_settings():
    schema = json.loads((ROOT / SCHEMA).read_text())
    assert schema["jupyter.lab.internationalization"]["domain"] == DOMAIN
    recorder = Recorder()
    translator._translate_schema_strings(recorder, schema)
    template = catalogue()
    missing = [each for each in recorder.asked if each[1] and template.get(each[1], context=each[0]) is None]
    assert missing == []


def test_an_outdated_template_fails_the_check(tmp_path):
    shutil.copytree(ROOT / "labextension", tmp_path / "labextension", ignore=shutil.ignore_patterns("lib"))
    (tmp_path / "node_modules").symlink_to(ROOT / "node_modules")
    (tmp_path / TEMPLATE).parent.mkdir(parents=True)
    shutil.copy(ROOT / TEMPLATE, tmp_path / TEMPLATE)

    def run(*options):
        command = ["node", tmp_path / "labextension" / "translations.mjs", *options]
        return subprocess.run(command, capture_output=True, text=True)

    source = tmp_path / "labextension" / "src" / "commands.ts"
    source.write_text(source.read_text().replace("Show the Triton panel", "Show another panel"))
    outdated = run("--check")
    assert outdated.returncode == 1
    assert "npm run translations" in outdated.stderr
    assert run().returncode == 0
    assert "Show another panel" in (tmp_path / TEMPLATE).read_text()


def make_pack(directory: Path) -> None:
    """A German language pack in which each of our strings begins with »."""
    translated = catalogue()
    for message in translated:
        if message.id:
            message.string = tuple(f"»{each}" for each in message.id) if message.pluralizable else f"»{message.id}"
    messages = directory / PACK / "locale" / "de_DE" / "LC_MESSAGES"
    messages.mkdir(parents=True)
    (directory / PACK / "__init__.py").touch()
    with (messages / f"{DOMAIN}.mo").open("wb") as file:
        write_mo(file, translated)
    strings = {
        "\4".join(filter(None, (message.context, message.id[0] if message.pluralizable else message.id))): (
            list(message.string) if message.pluralizable else [message.string]
        )
        for message in translated
        if message.id
    }
    header = {"domain": DOMAIN, "language": "de-DE", "plural_forms": "nplurals=2; plural=(n != 1);"}
    (messages / f"{DOMAIN}.json").write_text(json.dumps({"": header, **strings}))
    information = directory / f"{PACK}-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACK}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[jupyterlab.languagepack]\nde_DE = {PACK}\n")


def test_jupyterlab_shows_panel_command_and_settings_translated(start_lab, server, visit, tmp_path):
    make_pack(tmp_path)
    lab = start_lab(environment={"PYTHONPATH": str(tmp_path)}, urls=[server.grpc], metrics_urls=[server.metrics])
    settings = Path(lab.environment["JUPYTERLAB_SETTINGS_DIR"], "@jupyterlab", "translation-extension")
    settings.mkdir(parents=True)
    (settings / "plugin.jupyterlab-settings").write_text('{"locale": "de_DE"}')
    page = visit(lab)
    page.open_panel()
    expect(page.section("»Models")).to_be_visible(timeout=20_000)
    expect(page.tab.locator(".jp-LauncherCard", has_text="»New Triton notebook").first).to_be_visible()
    # jupyterlab_server does not translate the settings editor's list of extensions
    schema = page.tab.evaluate(_SCHEMA, [f"{lab.url}lab/api/settings/eaf-inference:plugin", lab.token])
    assert schema["properties"]["interval"]["title"] == "»Refresh interval"
