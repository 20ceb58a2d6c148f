import { nullTranslator } from '@jupyterlab/translation';
import { expect, test } from 'vitest';

import { expiry } from '../src/models/token';
import { facility } from './samples';

const trans = nullTranslator.load('');
const NOW = 1_000_000_000;

test.each([
  [null, false, 'no expiry known'],
  [480, false, 'token expires in 8 min'],
  [480, true, 'renewed automatically, 8 min left'],
  [-180, false, 'token expired 3 min ago'],
  [-180, true, 'token expired 3 min ago, renewed on next use'],
  [-1e9, false, 'token expired 32 years ago'],
  [9e11, false, 'token expires in more than 100 years']
])('a token with %s s left, renewed: %s', (left, renews, words) => {
  const at = left === null ? null : NOW + left;
  const known = facility({ token_expires_at: at, token_renews: renews });
  expect(expiry(known, 1000 * NOW, trans)).toBe(words);
});
