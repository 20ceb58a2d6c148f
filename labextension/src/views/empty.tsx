/**
 * The reason why there are no numbers, with buttons that may help.
 */
import React from 'react';

import type { IAttempt } from '../api';
import { addressProblem } from '../models/address';
import type { Help, IEmptyState } from '../models/empty';
import { clip, number } from '../models/format';
import { Button, Language } from './parts';

export type Helpers = Record<
  Exclude<Help, 'attempts' | 'address'>,
  { label: string; run: () => void }
>;

export function Empty(props: {
  state: IEmptyState;
  helpers: Helpers;
  connectTo: (address: string) => void;
  attempts: readonly IAttempt[];
}): JSX.Element {
  const { state, helpers, connectTo, attempts } = props;
  return (
    <div className="jp-EafInference-empty">
      <div role="status">
        <h2>{state.title}</h2>
        {state.text && <p>{state.text}</p>}
      </div>
      {state.help.map((help, index) =>
        help === 'attempts' ? (
          <Attempts key={help} attempts={attempts} />
        ) : help === 'address' ? (
          <Address key={help} connectTo={connectTo} />
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

/** An input for an address, to which the current notebook or a new one is connected. */
function Address(props: { connectTo: (address: string) => void }): JSX.Element {
  const trans = React.useContext(Language);
  const id = React.useId();
  const [text, setText] = React.useState('');
  const [problem, setProblem] = React.useState<string | null>(null);
  const submit = (event: React.FormEvent) => {
    event.preventDefault();
    const address = text.trim();
    const found = addressProblem(address, trans);
    setProblem(found);
    if (found === null) {
      props.connectTo(address);
    }
  };
  return (
    <form className="jp-EafInference-address" onSubmit={submit} noValidate>
      <label htmlFor={id}>{trans.__('Connect to an address')}</label>
      <div>
        <input
          id={id}
          type="url"
          value={text}
          placeholder={trans.__('grpcs://host:443')}
          spellCheck={false}
          autoComplete="url"
          aria-invalid={problem !== null}
          aria-describedby={problem === null ? undefined : `${id}-problem`}
          onChange={event => {
            setText(event.target.value);
            setProblem(null);
          }}
        />
        <button type="submit" className="jp-EafInference-button">
          {trans.__('Connect')}
        </button>
      </div>
      {problem !== null && (
        <p id={`${id}-problem`} role="alert">
          {problem}
        </p>
      )}
    </form>
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
