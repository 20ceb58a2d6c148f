/**
 * The models, this user's first, in descending order of load. A row can be dragged into a notebook.
 */
import { addIcon } from '@jupyterlab/ui-components';
import React from 'react';

import { clip, number, percent } from '../models/format';
import { FILTER_FROM, IModelRow, shownRows } from '../models/load';
import { deploymentOf, ownershipOf } from '../models/ownership';
import { levelOf } from '../models/status';
import { Bar, Language, Remark, Section } from './parts';

const LONG_WAIT = 100;

export interface IModelActions {
  /** Start to drag the row's cell. */
  drag(row: IModelRow, event: React.PointerEvent<HTMLElement>): void;
  /** Insert the row's cell into the current notebook. */
  insert(row: IModelRow): void;
}

export function Models(props: {
  rows: IModelRow[];
  /** The period of the figures, for example "last 23 s". */
  window: string | null;
  actions: IModelActions;
}): JSX.Element {
  const trans = React.useContext(Language);
  const [filter, setFilter] = React.useState('');
  const { rows, actions } = props;
  const filtered = rows.length >= FILTER_FROM;
  const { shown, more } = shownRows(rows, filtered ? filter : '');
  return (
    <Section
      name="models"
      title={trans.__('Models')}
      note={props.window ?? undefined}
    >
      {filtered && (
        <input
          type="search"
          className="jp-EafInference-filter"
          placeholder={trans.__('Filter %1 models', rows.length)}
          aria-label={trans.__('Filter models by name')}
          value={filter}
          onChange={event => setFilter(event.target.value)}
        />
      )}
      {shown.length > 0 && (
        <table className="jp-EafInference-models">
          <thead>
            <tr>
              <th scope="col">{trans.__('name')}</th>
              <th
                scope="col"
                title={trans.__('Inferences (rows) per second, all users')}
              >
                {trans.__('jets/s')}
              </th>
              <th
                scope="col"
                title={trans.__(
                  'Mean wait of a request in milliseconds; without load, of the last minute'
                )}
              >
                {trans.__('queue ms')}
              </th>
              <th
                scope="col"
                title={trans.__(
                  'Mean size of executed batches; without load, of the last minute'
                )}
              >
                {trans.__('batch')}
              </th>
            </tr>
          </thead>
          <tbody>
            {shown.map(row => (
              <Row key={row.key} row={row} actions={actions} />
            ))}
          </tbody>
        </table>
      )}
      {!rows.length && <Remark>{trans.__('The server has no models.')}</Remark>}
      {rows.length > 0 && !shown.length && (
        <Remark>{trans.__('No model has "%1" in its name.', filter)}</Remark>
      )}
      {more > 0 && (
        <Remark>
          {trans.__('and %1 more; use the filter to find them', more)}
        </Remark>
      )}
    </Section>
  );
}

function Row(props: { row: IModelRow; actions: IModelActions }): JSX.Element {
  const trans = React.useContext(Language);
  const { row, actions } = props;
  const name = clip(row.name);
  const ownership = ownershipOf(row, Date.now(), trans);
  const about = [
    clip(row.name, 300),
    deploymentOf(row, Date.now(), trans),
    row.inputs.length && trans.__('takes %1', clip(row.inputs.join(', '), 300)),
    row.outputs.length &&
      trans.__('gives %1', clip(row.outputs.join(', '), 300)),
    row.cell && trans.__('Drag into a notebook for a cell that calls it')
  ];
  const isSlow = row.queue !== null && row.queue >= LONG_WAIT;
  const kinds = [row.cell && 'jp-mod-draggable', row.mine && 'jp-mod-mine'];
  return (
    <tr
      className={kinds.filter(Boolean).join(' ')}
      onPointerDown={event => row.cell && actions.drag(row, event)}
    >
      <th scope="row" title={about.filter(Boolean).join('\n')}>
        <div className="jp-EafInference-modelName">
          <span>{name}</span>
          {row.version !== null && (
            <small>{trans.__('v%1', clip(row.version, 12))}</small>
          )}
          {row.state && <small>{clip(row.state, 24).toLowerCase()}</small>}
          {row.cell && (
            <button
              type="button"
              className="jp-EafInference-insert"
              title={trans.__('Insert a cell for %1', name)}
              aria-label={trans.__('Insert a cell for %1', name)}
              onPointerDown={event => event.stopPropagation()}
              onClick={() => actions.insert(row)}
            >
              <addIcon.react tag="span" width="14px" height="14px" />
            </button>
          )}
        </div>
        {ownership.length > 0 && (
          <div className="jp-EafInference-ownership jp-EafInference-parts">
            {ownership.map(each => (
              <span key={each}>{each}</span>
            ))}
          </div>
        )}
        <Bar
          label={trans.__('Share of %1 in all inferences', name)}
          value={row.share}
          text={percent(row.share)}
          level="normal"
        />
      </th>
      <td>{number(row.rate)}</td>
      <td
        data-level={isSlow ? 'saturated' : levelOf(null)}
        title={isSlow ? trans.__('Requests wait for a long time') : undefined}
      >
        {number(row.queue)}
      </td>
      <td>{number(row.batch)}</td>
    </tr>
  );
}
