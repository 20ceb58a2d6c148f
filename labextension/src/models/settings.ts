/**
 * The user's settings as a plain value.
 */
import type { ReadonlyPartialJSONValue } from '@lumino/coreutils';

const SECTIONS = [
  'advice',
  'gpus',
  'models',
  'clusters',
  'notebooks',
  'usage'
] as const;
export type Section = (typeof SECTIONS)[number];

export interface ISettings {
  interval: number;
  window: number;
  sections: Record<Section, boolean>;
  statusBar: boolean;
}

function within(
  value: ReadonlyPartialJSONValue | undefined,
  [least, usual, most]: [number, number, number]
): number {
  return typeof value === 'number' && Number.isFinite(value)
    ? Math.min(most, Math.max(least, value))
    : usual;
}

/** Read the settings; missing and invalid ones have their default. */
export function readSettings(
  composite: Readonly<Record<string, ReadonlyPartialJSONValue | undefined>>
): ISettings {
  const chosen = composite['sections'];
  const isOff = (section: Section) =>
    typeof chosen === 'object' &&
    chosen !== null &&
    !Array.isArray(chosen) &&
    (chosen as Record<string, unknown>)[section] === false;
  return {
    interval: within(composite['interval'], [1, 1, 60]),
    window: within(composite['window'], [30, 120, 600]),
    sections: Object.fromEntries(
      SECTIONS.map(section => [section, !isOff(section)])
    ) as Record<Section, boolean>,
    statusBar: composite['statusBar'] !== false
  };
}
