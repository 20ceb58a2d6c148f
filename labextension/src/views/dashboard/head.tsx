/**
 * The dashboard's header: the service, the time range, and buttons for other views.
 */
import type { TranslationBundle } from '@jupyterlab/translation';
import React from 'react';

import type { IFacility } from '../../api';
import { RANGES, VIEWS, View } from '../../models/dashboard';
import { clip, hostOf } from '../../models/format';
import { IFreshness, ageText } from '../../models/freshness';
import { Button, Health, Language } from '../parts';

/** The title of a tab with this view. */
export function titleOf(view: View, trans: TranslationBundle): string {
  return {
    all: trans.__('Triton dashboard'),
    gpus: trans.__('Triton: GPUs'),
    queue: trans.__('Triton: queue'),
    models: trans.__('Triton: models'),
    clusters: trans.__('Triton: my clusters'),
    usage: trans.__('Triton: my usage')
  }[view];
}

export function Head(props: {
  facility: IFacility | null;
  fresh: IFreshness;
  view: View;
  range: number;
  setRange: (seconds: number) => void;
  open: (view: View) => void;
}): JSX.Element {
  const trans = React.useContext(Language);
  const { facility, fresh, view, range, setRange, open } = props;
  const url = facility?.endpoint?.url;
  const isConnected = facility?.state === 'connected';
  const age = ageText(fresh, trans);
  const names: Record<View, string> = {
    all: trans.__('Everything'),
    gpus: trans.__('GPUs'),
    queue: trans.__('Queue'),
    models: trans.__('Models'),
    clusters: trans.__('My clusters'),
    usage: trans.__('My usage')
  };
  return (
    <header className="jp-EafInference-dashboardHead">
      <div className="jp-EafInference-dashboardTitle">
        <Health facility={facility} fresh={fresh} />
        <h1 title={url ? clip(url, 300) : undefined}>
          {url ? hostOf(url) : titleOf(view, trans)}
        </h1>
        {isConnected && facility.metrics.configured && age !== null && (
          <span>{age}</span>
        )}
      </div>
      <div
        className="jp-EafInference-views"
        role="group"
        aria-label={trans.__('Open in its own tab')}
      >
        <span aria-hidden="true">{trans.__('Open as a tab:')}</span>
        {VIEWS.filter(each => each !== view).map(each => (
          <Button
            key={each}
            label={names[each]}
            title={trans.__('Open "%1" in its own tab', names[each])}
            onClick={() => open(each)}
          />
        ))}
      </div>
      {isConnected && view !== 'clusters' && view !== 'usage' && (
        <fieldset className="jp-EafInference-ranges">
          <legend>{trans.__('Time range')}</legend>
          {RANGES.map(seconds => (
            <label key={seconds} data-checked={seconds === range}>
              <input
                type="radio"
                checked={seconds === range}
                onChange={() => setRange(seconds)}
              />
              {rangeName(seconds, trans)}
            </label>
          ))}
        </fieldset>
      )}
    </header>
  );
}

function rangeName(seconds: number, trans: TranslationBundle): string {
  return seconds < 3600
    ? trans.__('%1 min', seconds / 60)
    : trans.__('%1 h', seconds / 3600);
}
