import { readFileSync } from 'node:fs';

import { expect, test } from 'vitest';

const read = (path: string) =>
  readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');

test('npm, pip and Python have the same version', () => {
  const { version } = JSON.parse(read('package.json'));
  expect(read('pyproject.toml')).toContain(`\nversion = "${version}"\n`);
  expect(read('eaf_inference/__init__.py')).toContain(
    `\n__version__ = "${version}"\n`
  );
});
