/**
 * The notebooks that are connected, and what each does.
 */
import React from 'react';

import type { IFacility } from '../api';
import { clip, number, percent, share } from '../models/format';
import { markOf } from '../models/marks';
import type { IConnectedNotebook } from '../models/sessions';
import { Bar, Button, Language, Remark, Section } from './parts';

const SHOWN = 10;

export function Notebooks(props: {
  notebooks: readonly IConnectedNotebook[];
  /** What the panel shows, which a notebook may not be connected to. */
  facility: IFacility | null;
  /** What connects the current notebook, or opens one; null where that is done. */
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
  /** What is wrong with it. */
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
    ? trans.__('%1 jets so far', number(session.inferences))
    : mark === null
      ? trans.__('connected')
      : null;
  const state = session?.busy && does.length ? does.join(' · ') : total;
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
      {mark !== null && <p className="jp-EafInference-mark">{mark}</p>}
      {!!session?.not_finite && (
        <Remark>
          {trans.__(
            '%1 jets have NaN or infinite scores',
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
