/**
 * Validation of server addresses that users type. An address becomes part of a
 * cell, in which IPython expands variables and a new line ends the magic.
 */
import type { TranslationBundle } from '@jupyterlab/translation';

const ADDRESS =
  /^(?:(?:grpcs?|triton\+grpcs?|https?):\/\/)?(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::(\d{1,5}))?(?:\/[\w./~-]*)?$/i;
const LONGEST = 300;

export function isAddress(text: string): boolean {
  const found = text.length <= LONGEST ? ADDRESS.exec(text) : null;
  const port = found?.[1];
  return !!found && (port === undefined || (+port > 0 && +port < 65536));
}

/** What is wrong with the text and what was expected; null for a valid address. */
export function addressProblem(
  text: string,
  trans: TranslationBundle
): string | null {
  if (isAddress(text)) {
    return null;
  }
  const expected = trans.__(
    'Expected grpcs://host:443 (with TLS) or grpc://host:8001.'
  );
  return text
    ? `${trans.__('This is not a server address.')} ${expected}`
    : expected;
}
