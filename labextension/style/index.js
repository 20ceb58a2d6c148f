import 'uplot/dist/uPlot.min.css';
import './index.css';
import './dashboard.css';
