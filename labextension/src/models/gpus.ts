/**
 * Labels of GPUs, and how many to show in detail.
 */
import type { IGpu, ISnapshot } from '../api';
import { clip } from './format';

/** Up to this number, each GPU has its own chart; more share one. */
export const WITH_OWN_LINE = 4;
/** Rows before "and N more". */
export const ROWS = 16;

export interface IGpuRow extends IGpu {
  label: string;
}

/** Whether the server has no GPU; if a source is silent, the server may have one that is not reported. */
export function lacksGpus(
  snapshot: Pick<ISnapshot, 'gpus' | 'sources'>
): boolean {
  return (
    !snapshot.gpus.length &&
    snapshot.sources.every(each => each.age !== null && each.error === null)
  );
}

/** "A100" for "NVIDIA A100-SXM4-40GB": the memory is shown separately. */
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

/** GPUs in the server's order; equal labels are numbered. */
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
