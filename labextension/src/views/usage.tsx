/**
 * This user's own usage of the facility in the last 24 hours, and all users' usage of her models.
 */
import React from 'react';

import type { IModelUsage, IOwnedUsage, IUsage } from '../api';
import { clip, number, percent, share, size } from '../models/format';
import { byModel, problemOf, total } from '../models/usage';
import { Bar, Language, Remark, Section } from './parts';

const SHOWN = 5;

export function Usage({ usage }: { usage: IUsage }): JSX.Element {
  const trans = React.useContext(Language);
  const { models, owned } = usage;
  const problem = problemOf(usage, Date.now(), trans);
  return (
    <>
      <Section
        name="usage"
        title={trans.__('My usage')}
        note={
          total(models).estimated
            ? trans.__('last 24 hours (about)')
            : trans.__('last 24 hours')
        }
      >
        {models.length > 0 && <All models={models} />}
        {!models.length && problem === null && (
          <Remark>{trans.__('No usage yet.')}</Remark>
        )}
        {problem !== null && <Remark>{problem}</Remark>}
      </Section>
      {owned.length > 0 && <Owned models={owned} />}
    </>
  );
}

/** How much all users used the models that this user deployed; nobody is named. */
function Owned({ models }: { models: IOwnedUsage[] }): JSX.Element {
  const trans = React.useContext(Language);
  const more = models.length - SHOWN;
  return (
    <Section
      name="owned"
      title={trans.__('Use of my models')}
      note={
        models.some(each => each.estimated)
          ? trans.__('last 24 hours (about)')
          : trans.__('last 24 hours')
      }
    >
      <table className="jp-EafInference-models">
        <thead>
          <tr>
            <th scope="col">{trans.__('name')}</th>
            <th
              scope="col"
              title={trans.__(
                'Users whose requests were answered, you included'
              )}
            >
              {trans.__('users')}
            </th>
            <th scope="col">{trans.__('requests')}</th>
            <th scope="col" title={trans.__('Inferences (rows)')}>
              {trans.__('inferences')}
            </th>
          </tr>
        </thead>
        <tbody>
          {models.slice(0, SHOWN).map(each => (
            <tr key={each.model}>
              <th scope="row" title={clip(each.model, 300)}>
                <div className="jp-EafInference-modelName">
                  <span>{clip(each.model)}</span>
                </div>
              </th>
              <td>{number(each.users)}</td>
              <td>{number(each.requests)}</td>
              <td>{number(each.inferences)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {more > 0 && <Remark>{trans.__('and %1 more', more)}</Remark>}
    </Section>
  );
}

function All({ models }: { models: IModelUsage[] }): JSX.Element {
  const trans = React.useContext(Language);
  const all = total(models);
  const named = byModel(models);
  const more = named.length - SHOWN;
  return (
    <>
      <div className="jp-EafInference-row">
        <div className="jp-EafInference-pair">
          <span
            title={
              all.estimated
                ? trans.__(
                    "The facility's counters were reset in this period, so some usage may be missing."
                  )
                : undefined
            }
          >
            {trans._n(
              '%2 inference', // %1 is the bare number
              '%2 inferences',
              all.inferences,
              number(all.inferences)
            )}
          </span>
          <span>
            {trans._n(
              '%2 request',
              '%2 requests',
              all.requests,
              number(all.requests)
            )}
          </span>
        </div>
        <div className="jp-EafInference-pair jp-mod-quiet">
          <span title={trans.__('Sent and received')}>{size(all.bytes)}</span>
          <span title={trans.__('Requests that were refused or failed')}>
            {all.failures
              ? trans.__('%1 failed', number(all.failures))
              : trans.__('none failed')}
          </span>
        </div>
      </div>
      {named.length > 0 && (
        <table className="jp-EafInference-models">
          <thead>
            <tr>
              <th scope="col">{trans.__('name')}</th>
              <th scope="col" title={trans.__('Inferences (rows)')}>
                {trans.__('inferences')}
              </th>
              <th scope="col">{trans.__('requests')}</th>
              <th
                scope="col"
                title={trans.__('Requests that were refused or failed')}
              >
                {trans.__('failed')}
              </th>
            </tr>
          </thead>
          <tbody>
            {named.slice(0, SHOWN).map(each => (
              <Row key={each.model} row={each} of={all.inferences} />
            ))}
          </tbody>
        </table>
      )}
      {more > 0 && <Remark>{trans.__('and %1 more', more)}</Remark>}
    </>
  );
}

function Row(props: { row: IModelUsage; of: number }): JSX.Element {
  const trans = React.useContext(Language);
  const { row, of } = props;
  const name = clip(row.model);
  const part = share(row.inferences, of);
  return (
    <tr>
      <th scope="row" title={clip(row.model, 300)}>
        <div className="jp-EafInference-modelName">
          <span>{name}</span>
        </div>
        <Bar
          label={trans.__('Share of %1 in your usage', name)}
          value={part}
          text={percent(part)}
          level="normal"
        />
      </th>
      <td>{number(row.inferences)}</td>
      <td>{number(row.requests)}</td>
      <td>{number(row.failures)}</td>
    </tr>
  );
}
