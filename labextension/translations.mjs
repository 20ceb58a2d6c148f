/**
 * Write the translators' template, eaf_inference/locale/eaf_inference.pot, or with
 * `--check` compare it: `npm run translations`.
 */
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { GettextExtractor, JsExtractors } from 'gettext-extractor';

const ROOT = join(import.meta.dirname, '..');
const SOURCES = join('labextension', 'src');
const SCHEMA = join('labextension', 'schema', 'plugin.json');
const TEMPLATE = join('eaf_inference', 'locale', 'eaf_inference.pot');

// The methods of JupyterLab's translation bundles, and the meaning of their arguments.
const METHODS = {
  __: { text: 0 },
  _n: { text: 0, textPlural: 1 },
  _p: { context: 0, text: 1 },
  _np: { context: 0, text: 1, textPlural: 2 }
};
const BUNDLES = ['trans', '[this]._trans'];

// The texts of a schema that jupyterlab_server translates: their path, and the context of the lookup.
const OF_A_SCHEMA = [
  [/^\/(title|description)$/, 'schema'],
  [/^\/(definitions\/.*\/)?properties\/.*\/(title|description)$/, 'settings'],
  [/^\/jupyter\.lab\.setting-icon-label$/, 'settings'],
  [/^\/jupyter\.lab\.menus\/.*\/label$/, 'menu'],
  [/^\/jupyter\.lab\.toolbars\/.*\/label$/, 'toolbar']
];

function addSources(extractor) {
  const parser = extractor.createJsParser(
    Object.entries(METHODS).map(([method, args]) =>
      JsExtractors.callExpression(
        BUNDLES.map(bundle => `${bundle}.${method}`),
        { arguments: args }
      )
    )
  );
  for (const name of readdirSync(join(ROOT, SOURCES), {
    recursive: true
  }).sort()) {
    if (/\.tsx?$/.test(name)) {
      const path = join(SOURCES, name);
      parser.parseString(readFileSync(join(ROOT, path), 'utf8'), path);
    }
  }
}

function addSchema(extractor, value, path = '') {
  if (typeof value === 'string') {
    const [, context] = OF_A_SCHEMA.find(([where]) => where.test(path)) ?? [];
    if (context && value) {
      extractor.addMessage({ text: value, context, references: [SCHEMA] });
    }
  } else if (value !== null && typeof value === 'object') {
    for (const [key, each] of Object.entries(value)) {
      addSchema(
        extractor,
        each,
        Array.isArray(value) ? `${path}[${key}]` : `${path}/${key}`
      );
    }
  }
}

function template() {
  const extractor = new GettextExtractor();
  addSources(extractor);
  addSchema(extractor, JSON.parse(readFileSync(join(ROOT, SCHEMA), 'utf8')));
  const text = extractor.getPotString({
    'Project-Id-Version': 'eaf-inference',
    'Content-Type': 'text/plain; charset=UTF-8'
  });
  // without line numbers, which would change with every edit
  const withoutLines = text
    .replace(/^(#: .*):\d+$/gm, '$1')
    .replace(/^(#: .*\n)\1+/gm, '$1');
  return `${withoutLines.trimEnd()}\n`;
}

const path = join(ROOT, TEMPLATE);
if (!process.argv.includes('--check')) {
  writeFileSync(path, template());
} else if (readFileSync(path, 'utf8') !== template()) {
  console.error(
    `${TEMPLATE} is out of date. Write it again with: npm run translations`
  );
  process.exitCode = 1;
}
