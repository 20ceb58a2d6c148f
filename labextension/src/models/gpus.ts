/**
 * GPUs for the screen: what to call them, and how many to show in detail.
 */
import type { IGpu } from '../api';
import { clip } from './format';

/** So many have a line of their own; more share one chart. */
export const WITH_OWN_LINE = 4;
/** So many rows before "and N more". */
export const ROWS = 16;

export interface IGpuRow extends IGpu {
  label: string;
}

/** "A100" of "NVIDIA A100-SXM4-40GB": memory is shown beside it. */
function modelOf(name: string): string {
  const short = name
    .replace(/^(NVIDIA|Tesla)\s+/i, '')
    .replace(/^(Tesla)\s+/i, '')
    .replace(/-(SXM|PCIE)\d*(-.*)?$/i, '')
    .replace(/[ -]\d+\s?GB\b.*$/i, '');
  return short || 'GPU';
}

function nameOf(gpu: IGpu): string {
  return [modelOf(gpu.name ?? ''), gpu.profile, gpu.host]
    .filter((part): part is string => !!part)
    .map(part => clip(part, 60))
    .join(' · ');
}

/** In the server's order, which stays; those that would read the same are numbered. */
export function gpuRows(gpus: readonly IGpu[]): IGpuRow[] {
  const names = gpus.map(nameOf);
  const total = new Map<string, number>();
  names.forEach(name => total.set(name, (total.get(name) ?? 0) + 1));
  const seen = new Map<string, number>();
  return gpus.map((gpu, index) => {
    const name = names[index];
    const position = (seen.get(name) ?? 0) + 1;
    seen.set(name, position);
    const label = (total.get(name) ?? 0) > 1 ? `${name} #${position}` : name;
    return { ...gpu, label };
  });
}
