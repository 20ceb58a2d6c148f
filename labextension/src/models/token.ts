/**
 * The lifetime of the user's token, worded as in `Connection.identity`.
 */
import type { TranslationBundle } from '@jupyterlab/translation';

import type { IFacility } from '../api';
import { duration } from './format';

const YEAR = 365.25 * 86400;

/** "renewed automatically, 8 min left", "token expires in 8 min", "token expired 3 min ago". */
export function expiry(
  facility: IFacility,
  now: number,
  trans: TranslationBundle
): string {
  const { token_expires_at: at, token_renews: renews } = facility;
  if (at === null) {
    return trans.__('no expiry known');
  }
  const left = at - now / 1000;
  const length = lengthOf(Math.abs(left), trans);
  if (left > 0) {
    return renews
      ? trans.__('renewed automatically, %1 left', length)
      : trans.__('token expires in %1', length);
  }
  return renews
    ? trans.__('token expired %1 ago, renewed on next use', length)
    : trans.__('token expired %1 ago', length);
}

function lengthOf(seconds: number, trans: TranslationBundle): string {
  if (seconds < 2 * YEAR) {
    return duration(seconds);
  }
  return seconds < 100 * YEAR
    ? trans.__('%1 years', Math.round(seconds / YEAR))
    : trans.__('more than 100 years');
}
