/**
 * Numbers as text. A value that was not measured is a dash, never 0.
 */
const MISSING = '–';

const GROUPED = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const SHORT = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });
const COMPACT = new Intl.NumberFormat('en', {
  notation: 'compact',
  maximumSignificantDigits: 3
});

/** Limit, unit and name. */
const SIZES = [
  [999.5e3, 1e3, 'kB'],
  [999.5e6, 1e6, 'MB'],
  [999.5e9, 1e9, 'GB'],
  [Infinity, 1e12, 'TB']
] as const;

type Maybe = number | null | undefined;

function isKnown(value: Maybe): value is number {
  return typeof value === 'number' && Number.isFinite(value);
}

function format(value: Maybe, text: (known: number) => string): string {
  return isKnown(value) ? text(value) : MISSING;
}

/** A count, a rate or a time: one decimal below 10, none above, compact from a million. */
export function number(value: Maybe): string {
  return format(value, known => {
    if (Math.abs(known) >= 1e6) {
      return COMPACT.format(known);
    }
    if (known > 0 && known < 0.05) {
      return '<0.1'; // small, but not nothing
    }
    return (Math.abs(known) < 9.95 ? SHORT : GROUPED).format(known);
  });
}

/** A fraction as a percentage. */
export function percent(value: Maybe): string {
  return format(value, known => `${Math.round(known * 100)}%`);
}

export function watts(value: Maybe): string {
  return format(value, known => `${GROUPED.format(known)} W`);
}

/** Used and total memory, in a unit that fits the total. */
export function memory(used: Maybe, total: Maybe): string {
  if (!isKnown(used) && !isKnown(total)) {
    return MISSING;
  }
  const unit = (total ?? used ?? 0) >= 2 ** 30 ? 30 : 20;
  const scaled = (bytes: Maybe) =>
    format(bytes, known => {
      const value = known / 2 ** unit;
      return (value < 100 ? SHORT : GROUPED).format(value);
    });
  const text = isKnown(total)
    ? `${scaled(used)} / ${scaled(total)}`
    : scaled(used);
  return `${text} ${unit === 30 ? 'GiB' : 'MiB'}`;
}

/** An amount of data: "9.3 kB", "12 MB", "3.4 GB", "1.2 TB". */
export function size(bytes: Maybe): string {
  return format(bytes, known => {
    const [, unit, name] =
      SIZES.find(([limit]) => known < limit) ?? SIZES[SIZES.length - 1];
    return `${number(known / unit)} ${name}`;
  });
}

/** "45 s", "8 min", "2 h", "3 d". */
export function duration(seconds: Maybe): string {
  return format(seconds, known => {
    const whole = Math.max(0, Math.round(known));
    if (whole < 90) {
      return `${whole} s`;
    }
    if (whole < 90 * 60) {
      return `${Math.round(whole / 60)} min`;
    }
    if (whole < 36 * 3600) {
      return `${Math.round(whole / 3600)} h`;
    }
    return `${Math.round(whole / 86400)} d`;
  });
}

/** A share between 0 and 1, or null if it is unknown. */
export function share(part: Maybe, whole: Maybe): number | null {
  return isKnown(part) && isKnown(whole) && whole > 0
    ? Math.min(1, Math.max(0, part / whole))
    : null;
}

/** Shorten a name for the screen; names come from servers and may have any length. */
export function clip(name: string, length = 120): string {
  return name.length > length ? `${name.slice(0, length - 1)}…` : name;
}

/** "triton.fnal.gov:443" of "grpcs://triton.fnal.gov:443". */
export function hostOf(url: string): string {
  return clip(url.replace(/^[a-z+]+:\/\//i, '').replace(/\/+$/, ''));
}

/** The URL if it has the scheme http or https, so that it is safe to open. */
export function webUrl(url: string | null | undefined): string | null {
  return url && /^https?:\/\//i.test(url) ? url : null;
}

/** The mean of the known values; null without any. */
export function mean(values: Iterable<Maybe>): number | null {
  let sum = 0;
  let count = 0;
  for (const value of values) {
    if (isKnown(value)) {
      sum += value;
      count += 1;
    }
  }
  return count ? sum / count : null;
}
