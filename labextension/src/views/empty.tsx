/**
 * Instead of numbers: why there are none, and a button that helps.
 */
import React from 'react';

import type { IAttempt } from '../api';
import type { Help, IEmptyState } from '../models/empty';
import { clip, number } from '../models/format';
import { Button, Language } from './parts';

export type Helpers = Record<
  Exclude<Help, 'attempts'>,
  { label: string; run: () => void }
>;

export function Empty(props: {
  state: IEmptyState;
  helpers: Helpers;
  attempts: readonly IAttempt[];
}): JSX.Element {
  const { state, helpers, attempts } = props;
  return (
    <div className="jp-EafInference-empty">
      <div role="status">
        <h2>{state.title}</h2>
        {state.text && <p>{state.text}</p>}
      </div>
      {state.help.map((help, index) =>
        help === 'attempts' ? (
          <Attempts key={help} attempts={attempts} />
        ) : (
          <Button
            key={help}
            primary={index === 0}
            label={helpers[help].label}
            onClick={helpers[help].run}
          />
        )
      )}
    </div>
  );
}

function Attempts(props: { attempts: readonly IAttempt[] }): JSX.Element {
  const trans = React.useContext(Language);
  const { attempts } = props;
  return (
    <details className="jp-EafInference-attempts">
      <summary>
        {trans._n(
          '%1 place was tried',
          '%1 places were tried',
          attempts.length,
          attempts.length
        )}
      </summary>
      <ul>
        {attempts.slice(0, 30).map((attempt, index) => (
          <li key={index}>
            <strong>{clip(attempt.source, 80)}</strong>{' '}
            {attempt.value && <code>{clip(attempt.value, 200)}</code>}{' '}
            <span>
              {clip(attempt.outcome, 200)}
              {attempt.seconds !== null &&
                ` (${trans.__('%1 s', number(attempt.seconds))})`}
            </span>
          </li>
        ))}
      </ul>
    </details>
  );
}
