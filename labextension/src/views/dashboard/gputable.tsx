/**
 * A table of the GPUs' current figures.
 */
import React from 'react';

import type { IGpu } from '../../api';
import { memory, percent, share, watts } from '../../models/format';
import { gpuRows } from '../../models/gpus';
import { Bar, Language } from '../parts';

export function GpuTable({
  gpus
}: {
  gpus: readonly IGpu[];
}): JSX.Element | null {
  const trans = React.useContext(Language);
  const rows = gpuRows(gpus);
  const has = (key: 'power' | 'tensor' | 'dram') =>
    rows.some(row => row[key] !== null);
  if (!rows.length) {
    return null;
  }
  return (
    <table className="jp-EafInference-models jp-EafInference-gpuTable">
      <thead>
        <tr>
          <th scope="col">{trans.__('GPU')}</th>
          <th scope="col">{trans.__('utilization')}</th>
          <th scope="col">{trans.__('memory')}</th>
          {has('power') && <th scope="col">{trans.__('power')}</th>}
          {has('tensor') && <th scope="col">{trans.__('tensor cores')}</th>}
          {has('dram') && <th scope="col">{trans.__('DRAM')}</th>}
        </tr>
      </thead>
      <tbody>
        {rows.map(row => (
          <tr key={row.id}>
            <th scope="row" title={row.id}>
              <div className="jp-EafInference-modelName">
                <span>{row.label}</span>
              </div>
            </th>
            <td>
              {percent(row.utilization)}
              <Bar
                label={trans.__('Utilization of %1', row.label)}
                value={row.utilization}
                text={percent(row.utilization)}
              />
            </td>
            <td>
              {memory(row.memory_used, row.memory_total)}
              <Bar
                label={trans.__('Memory of %1', row.label)}
                value={share(row.memory_used, row.memory_total)}
                text={memory(row.memory_used, row.memory_total)}
                level="normal"
              />
            </td>
            {has('power') && <td>{watts(row.power)}</td>}
            {has('tensor') && <td>{percent(row.tensor)}</td>}
            {has('dram') && <td>{percent(row.dram)}</td>}
          </tr>
        ))}
      </tbody>
    </table>
  );
}
