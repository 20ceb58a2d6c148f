/**
 * Small components that the sections share.
 */
import type { TranslationBundle } from '@jupyterlab/translation';
import { nullTranslator } from '@jupyterlab/translation';
import React from 'react';

import type { IFacility } from '../api';
import type { IFreshness } from '../models/freshness';
import { Level, levelOf } from '../models/status';

/** The user's language. */
export const Language = React.createContext<TranslationBundle>(
  nullTranslator.load('eaf_inference')
);

export function Section(props: {
  name: string;
  title: string;
  note?: string;
  children: React.ReactNode;
}): JSX.Element {
  // panel and dashboard may both show this section
  const id = `jp-EafInference-${props.name}-${React.useId()}`;
  return (
    <section className="jp-EafInference-section" aria-labelledby={id}>
      <div className="jp-EafInference-sectionHeader">
        <h2 id={id}>{props.title}</h2>
        {props.note && <span title={props.note}>{props.note}</span>}
      </div>
      {props.children}
    </section>
  );
}

/** A dot: connected, connected with outdated numbers, or not connected. */
export function Health(props: {
  facility: IFacility | null;
  fresh: IFreshness;
}): JSX.Element {
  const trans = React.useContext(Language);
  const isConnected = props.facility?.state === 'connected';
  const health = !isConnected ? 'bad' : props.fresh.stale ? 'stale' : 'good';
  const means = {
    good: trans.__('connected'),
    stale: trans.__('numbers are outdated'),
    bad: trans.__('not connected')
  }[health];
  return (
    <span
      className="jp-EafInference-health"
      data-health={health}
      role="img"
      aria-label={means}
      title={means}
    />
  );
}

/** A share of a whole; renders nothing if it is unknown. */
export function Bar(props: {
  label: string;
  value: number | null;
  text: string;
  level?: Level;
}): JSX.Element | null {
  const { value } = props;
  if (value === null) {
    return null;
  }
  const width = `${Math.min(100, Math.max(0, 100 * value))}%`;
  return (
    <div
      className="jp-EafInference-bar"
      data-level={props.level ?? levelOf(value)}
      role="meter"
      aria-label={props.label}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={Math.round(100 * value)}
      aria-valuetext={props.text}
    >
      <div style={{ width }} />
    </div>
  );
}

export function Button(props: {
  label: string;
  title?: string;
  primary?: boolean;
  onClick: () => void;
}): JSX.Element {
  return (
    <button
      type="button"
      className={`jp-EafInference-button${props.primary ? ' jp-mod-primary' : ''}`}
      title={props.title}
      aria-label={props.title}
      onClick={props.onClick}
    >
      {props.label}
    </button>
  );
}

/** A line with a name and a value. */
export function Pair(props: {
  name: string;
  value: React.ReactNode;
  quiet?: boolean;
}): JSX.Element {
  return (
    <div
      className={`jp-EafInference-pair${props.quiet ? ' jp-mod-quiet' : ''}`}
    >
      <span title={props.name}>{props.name}</span>
      <span>{props.value}</span>
    </div>
  );
}

export function Remark(props: { children: React.ReactNode }): JSX.Element {
  return <p className="jp-EafInference-remark">{props.children}</p>;
}
