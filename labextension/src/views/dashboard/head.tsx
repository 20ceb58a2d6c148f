/**
 * What is above the charts: which service, how long back, and the other views.
 */
import type { TranslationBundle } from '@jupyterlab/translation';
import React from 'react';

import type { IFacility } from '../../api';
import { RANGES, VIEWS, View } from '../../models/dashboard';
import { clip, duration, hostOf } from '../../models/format';
import type { IFreshness } from '../../models/freshness';
import { Button, Health, Language } from '../parts';

/** What a tab with this view is called. */
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
        {isConnected && fresh.age !== null && (
          <span>{ageOf(fresh, trans)}</span>
        )}
      </div>
      <div
        className="jp-EafInference-views"
        role="group"
        aria-label={trans.__('Open in a tab of its own')}
      >
        <span aria-hidden="true">{trans.__('Open as a tab:')}</span>
        {VIEWS.filter(each => each !== view).map(each => (
          <Button
            key={each}
            label={names[each]}
            title={trans.__('Open "%1" in a tab of its own', names[each])}
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

function ageOf({ age, stale }: IFreshness, trans: TranslationBundle): string {
  if (stale) {
    return trans.__('last updated %1 ago', duration(age));
  }
  return (age ?? 0) < 3
    ? trans.__('up to date')
    : trans.__('updated %1 ago', duration(age));
}

function rangeName(seconds: number, trans: TranslationBundle): string {
  return seconds < 3600
    ? trans.__('%1 min', seconds / 60)
    : trans.__('%1 h', seconds / 3600);
}
