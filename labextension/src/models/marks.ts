/**
 * Warnings for the rows of connected notebooks.
 */
import type { TranslationBundle } from '@jupyterlab/translation';

import type { IFacility } from '../api';
import { clip } from './format';
import { retryingOf } from './outage';
import type { IConnectedNotebook } from './sessions';

/** The warning for a notebook, or null if it is connected to the server that the panel shows. */
export function markOf(
  connected: Pick<IConnectedNotebook, 'session' | 'lost'>,
  facility: IFacility | null,
  trans: TranslationBundle
): string | null {
  const { session, lost } = connected;
  if (lost === 'restarting') {
    return trans.__('kernel is restarting');
  }
  if (lost === 'died') {
    return trans.__('kernel died: connect again');
  }
  const retrying = retryingOf(session, trans);
  if (retrying !== null) {
    return retrying;
  }
  const endpoint = session?.endpoint;
  if (!endpoint || !facility) {
    return null;
  }
  if (
    facility.state === 'unreachable' &&
    facility.attempts.some(each => isSame(each.value, endpoint))
  ) {
    return trans.__('%1 does not answer', clip(endpoint, 200));
  }
  const shown = facility.endpoint;
  return shown && [shown.url, ...shown.urls].some(url => isSame(url, endpoint))
    ? null
    : trans.__('connected to %1', clip(endpoint, 200));
}

/** Whether two addresses are equal, with all names of the loopback interface alike. */
function isSame(one: string, other: string): boolean {
  const [a, b] = [one, other].map(url =>
    url
      .toLowerCase()
      .replace(/\/+$/, '')
      .replace(/\/\/(localhost|\[::1\])(?=[:/]|$)/, '//127.0.0.1')
  );
  return a === b;
}
