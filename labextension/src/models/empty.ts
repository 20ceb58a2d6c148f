/**
 * Why there is nothing to show and which actions help, for each state.
 */
import type { TranslationBundle } from '@jupyterlab/translation';

import type { ApiError, FacilityState, IFacility, ISession } from '../api';
import { clip, webUrl } from './format';

export type Help =
  'connect' | 'address' | 'retry' | 'documentation' | 'reload' | 'attempts';

export interface IEmptyState {
  title: string;
  text: string;
  /** In order of usefulness. */
  help: Help[];
}

type Problem = Exclude<FacilityState, 'connected'>;

const HELP: Record<Problem, Help[]> = {
  'no-facility': ['connect', 'address', 'retry', 'documentation', 'attempts'],
  unreachable: ['retry', 'address', 'documentation', 'attempts'],
  'not-authorised': ['retry', 'address', 'documentation', 'attempts'],
  misconfigured: ['documentation', 'retry', 'address', 'attempts']
};

function words(
  state: Problem,
  trans: TranslationBundle
): { title: string; text: string } {
  switch (state) {
    case 'no-facility':
      return {
        title: trans.__('No Triton service was found'),
        text: trans.__(
          'No Triton address is configured. Connect a notebook to an address, or start a server with "eaf-inference up".'
        )
      };
    case 'unreachable':
      return {
        title: trans.__('Triton does not answer'),
        text: trans.__('It may be restarting. This page retries automatically.')
      };
    case 'not-authorised':
      return {
        title: trans.__('Not authorised'),
        text: trans.__(
          'Triton rejected your token. Log in again, or ask for access.'
        )
      };
    case 'misconfigured':
      return {
        title: trans.__('The configuration is invalid'),
        text: trans.__('Please contact the operators of this facility.')
      };
  }
}

/** The reason for an empty panel; null if there is something to show. */
export function emptyState(
  facility: IFacility | null,
  failure: ApiError | null,
  trans: TranslationBundle
): IEmptyState | null {
  if (facility === null) {
    return failure === null
      ? { title: trans.__('Looking for Triton…'), text: '', help: [] }
      : failureState(failure, trans);
  }
  if (facility.state === 'connected') {
    return null;
  }
  const state = facility.state in HELP ? facility.state : 'unreachable';
  const { title, text } = words(state, trans);
  const help = HELP[state].filter(
    each =>
      (each !== 'documentation' || webUrl(facility.documentation) !== null) &&
      (each !== 'attempts' || facility.attempts.length > 0)
  );
  // the server writes commands as for a terminal
  const why = (facility.problem || text).replace(/`/g, '"');
  return { title, text: clip(why, 600), help };
}

function failureState(
  failure: ApiError,
  trans: TranslationBundle
): IEmptyState {
  if (failure.status === 401 || failure.status === 403) {
    return {
      title: trans.__('Logged out of Jupyter'),
      text: trans.__(
        'Your Jupyter session has ended. Reload the page to log in.'
      ),
      help: ['reload']
    };
  }
  if (failure.status === 404) {
    return {
      title: trans.__('The server extension is missing'),
      text: trans.__(
        'This Jupyter server does not run the extension eaf_inference. Install eaf-inference where Jupyter runs, and restart the server.'
      ),
      help: ['retry']
    };
  }
  return {
    title: trans.__('No answer from the Jupyter server'),
    text: trans.__(
      'Reason: %1.',
      clip(failure.message || `${failure.status}`, 200)
    ),
    help: ['retry']
  };
}

/** The same, adjusted if a notebook is connected although the panel found nothing. */
export function foundByNotebooks(
  state: IEmptyState | null,
  facility: IFacility | null,
  connected: readonly { session: ISession | null }[],
  trans: TranslationBundle
): IEmptyState | null {
  const endpoint = connected
    .map(each => each.session?.endpoint)
    .find(each => !!each);
  if (!state || facility?.state !== 'no-facility' || !endpoint) {
    return state;
  }
  return {
    title: trans.__('Only a notebook is connected'),
    text: trans.__(
      'It is connected to %1, but this Jupyter server is not configured for that address, so the panel has no figures. To see them, set EAF_TRITON_URL before Jupyter starts.',
      clip(endpoint, 200)
    ),
    help: state.help.filter(help => help !== 'connect')
  };
}
