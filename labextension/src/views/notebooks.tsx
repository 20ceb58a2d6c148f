/**
 * The connected notebooks and their current work.
 */
import type { TranslationBundle } from '@jupyterlab/translation';
import React from 'react';

import type { IFacility, ISession } from '../api';
import { clip, duration, number, percent, share } from '../models/format';
import { markOf } from '../models/marks';
import type { IConnectedNotebook } from '../models/sessions';
import { Bar, Button, Language, Remark, Section } from './parts';

const SHOWN = 10;

export function Notebooks(props: {
  notebooks: readonly IConnectedNotebook[];
  /** The facility that the panel shows; a notebook may use another one. */
  facility: IFacility | null;
  /** Connects the current notebook or opens a new one; null if it is connected. */
  connect: { label: string; run: () => void } | null;
}): JSX.Element {
  const trans = React.useContext(Language);
  const { notebooks, facility, connect } = props;
  const more = notebooks.length - SHOWN;
  return (
    <Section name="notebooks" title={trans.__('Notebooks')}>
      {notebooks.slice(0, SHOWN).map(each => (
        <Notebook
          key={each.id}
          connected={each}
          mark={markOf(each, facility, trans)}
        />
      ))}
      {more > 0 && <Remark>{trans.__('and %1 more', more)}</Remark>}
      {!notebooks.length && (
        <Remark>{trans.__('No open notebook is connected.')}</Remark>
      )}
      {connect && (
        <div className="jp-EafInference-row">
          <Button label={connect.label} onClick={connect.run} />
        </div>
      )}
    </Section>
  );
}

function Notebook(props: {
  connected: IConnectedNotebook;
  /** A warning. */
  mark: string | null;
}): JSX.Element {
  const trans = React.useContext(Language);
  const { mark } = props;
  const { notebook, session, stop } = props.connected;
  const title = clip(notebook.title);
  const progress = share(session?.done, session?.total);
  const does = [
    session?.label ? clip(session.label, 60) : null,
    progress === null ? null : percent(progress),
    typeof session?.inferences_per_second === 'number'
      ? trans.__('%1 jets/s', number(session.inferences_per_second))
      : null
  ].filter(each => each !== null);
  const total = session?.inferences
    ? trans._n(
        '%2 jet so far', // %1 is the bare number
        '%2 jets so far',
        session.inferences,
        number(session.inferences)
      )
    : mark === null
      ? trans.__('connected')
      : null;
  const state = session?.busy && does.length ? does.join(' · ') : total;
  const rest = session?.busy
    ? [
        countOf(session, trans),
        typeof session.left === 'number'
          ? trans.__('%1 left', duration(session.left))
          : null
      ].filter(each => each !== null)
    : [];
  return (
    <div className="jp-EafInference-row">
      <div className="jp-EafInference-pair">
        <button
          type="button"
          className="jp-EafInference-link"
          title={trans.__('Show %1', title)}
          onClick={() => notebook.reveal()}
        >
          {title}
        </button>
        {session?.busy && (
          <Button
            label={trans.__('Stop')}
            title={trans.__('Stop %1: interrupt its kernel', title)}
            onClick={() => void stop().catch(console.error)}
          />
        )}
      </div>
      {state !== null && (
        <div className="jp-EafInference-pair jp-mod-quiet">
          <span>{state}</span>
        </div>
      )}
      {rest.length > 0 && (
        <div className="jp-EafInference-pair jp-mod-quiet">
          <span>{rest.join(' · ')}</span>
        </div>
      )}
      {mark !== null && <p className="jp-EafInference-mark">{mark}</p>}
      {!!session?.failed && (
        <p className="jp-EafInference-mark">
          {session.unit === 'file'
            ? trans._n(
                '%2 file failed',
                '%2 files failed',
                session.failed,
                number(session.failed)
              )
            : trans._n(
                '%2 chunk failed',
                '%2 chunks failed',
                session.failed,
                number(session.failed)
              )}
        </p>
      )}
      {!!session?.not_finite && (
        <Remark>
          {trans._n(
            '%2 jet has NaN or infinite scores',
            '%2 jets have NaN or infinite scores',
            session.not_finite,
            number(session.not_finite)
          )}
        </Remark>
      )}
      {session?.busy && (
        <Bar
          label={trans.__('Progress of %1', title)}
          value={progress}
          text={percent(progress)}
          level="normal"
        />
      )}
    </div>
  );
}

/** What is done of a data set; null for the jets of one call, whose share is enough. */
function countOf(session: ISession, trans: TranslationBundle): string | null {
  const done = number(session.done);
  const total = typeof session.total === 'number' ? session.total : null;
  switch (session.unit) {
    case 'file':
      return total === null
        ? trans.__('%1 files so far', done)
        : trans.__('%1 of %2 files', done, number(total));
    case 'chunk':
      return total === null
        ? trans.__('%1 chunks so far', done)
        : trans.__('%1 of %2 chunks', done, number(total));
    default:
      return null;
  }
}
