import { expect, test } from 'vitest';

import {
  clip,
  duration,
  hostOf,
  mean,
  memory,
  number,
  percent,
  share,
  size,
  watts,
  webUrl
} from '../src/models/format';

const GIB = 2 ** 30;

test('a value that was not measured is a dash, never 0', () => {
  for (const text of [number, percent, watts, duration, size]) {
    expect(text(null)).toBe('–');
    expect(text(undefined)).toBe('–');
    expect(text(NaN)).toBe('–');
    expect(text(0)).toMatch(/^0/);
  }
  expect(memory(null, null)).toBe('–');
  expect(memory(null, 20 * GIB)).toBe('– / 20 GiB');
});

test.each([
  [0, '0'],
  [0.004, '<0.1'],
  [3.21, '3.2'],
  [9.96, '10'],
  [12.3, '12'],
  [11940, '11,940'],
  [3_210_000, '3.21M']
])('the number %d reads %s', (value, text) => {
  expect(number(value)).toBe(text);
});

test.each([
  [0, '0 s'],
  [-3, '0 s'],
  [45, '45 s'],
  [485, '8 min'],
  [7200, '2 h'],
  [260000, '3 d']
])('%d seconds read %s', (seconds, text) => {
  expect(duration(seconds)).toBe(text);
});

test('memory has the unit of the total', () => {
  expect(memory(14.2 * GIB, 20 * GIB)).toBe('14.2 / 20 GiB');
  expect(memory(512 * 2 ** 20, 768 * 2 ** 20)).toBe('512 / 768 MiB');
  expect(memory(GIB, null)).toBe('1 GiB');
});

test.each([
  [0, '0 kB'],
  [900, '0.9 kB'],
  [999_700, '1 MB'],
  [12_300_000, '12 MB'],
  [3_410_000_000, '3.4 GB'],
  [1_200_000_000_000, '1.2 TB']
])('%d bytes read %s', (bytes, text) => {
  expect(size(bytes)).toBe(text);
});

test('a share is between 0 and 1, or unknown', () => {
  expect(share(1, 4)).toBe(0.25);
  expect(share(9, 4)).toBe(1);
  expect(share(null, 4)).toBeNull();
  expect(share(1, 0)).toBeNull();
});

test('a mean ignores unknown values', () => {
  expect(mean([1, null, 3])).toBe(2);
  expect(mean([null])).toBeNull();
  expect(mean([])).toBeNull();
});

test('long names are clipped, and hosts have no scheme', () => {
  expect(clip('x'.repeat(10000)).length).toBe(120);
  expect(hostOf('grpcs://triton.fnal.gov:443/')).toBe('triton.fnal.gov:443');
  expect(hostOf('triton+grpc://h:1/m')).toBe('h:1/m');
});

test('only http and https URLs are opened', () => {
  expect(webUrl('https://a/b')).toBe('https://a/b');
  expect(webUrl('javascript:alert(1)')).toBeNull();
  expect(webUrl('data:text/html,x')).toBeNull();
  expect(webUrl('')).toBeNull();
  expect(webUrl(null)).toBeNull();
});
