/**
 * Icons in the theme's colour: Triton's trident, and a chart.
 */
import { LabIcon } from '@jupyterlab/ui-components';

const SVG = `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
  <path class="jp-icon3" fill="#616161" d="M12 1.5 14.6 6H13v7.9c2.4-.4 4.2-2.1 4.2-4.6V7.5h-1.5L18.2 3l2.5 4.5h-1.5v1.8c0 3.7-2.7 6.3-6.2 6.7v6.5h-2V16c-3.500-.4-6.200-3-6.200-6.700V7.500H3.300L5.800 3l2.500 4.500H6.800v1.800c0 2.500 1.800 4.200 4.200 4.600V6H9.400z"/>
</svg>`;

const CHART = `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
  <path class="jp-icon3" fill="#616161" d="M3 3h2v16h16v2H3zm4.300 12.300 4.200-5.600 3.500 3.100 4.800-7 1.600 1.200-6 8.800-3.600-3.200-2.900 3.900z"/>
</svg>`;

export const tritonIcon = new LabIcon({
  name: 'eaf-inference:triton',
  svgstr: SVG
});

/** A chart with axes. */
export const dashboardIcon = new LabIcon({
  name: 'eaf-inference:dashboard',
  svgstr: CHART
});

/** A data URL for the launcher, which takes images only, in a colour that fits all themes. */
const pictureOf = (svg: string): string =>
  `data:image/svg+xml,${encodeURIComponent(svg.replace('#616161', '#1e88e5'))}`;
export const tritonPicture = pictureOf(SVG);
export const dashboardPicture = pictureOf(CHART);
