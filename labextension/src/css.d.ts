declare module '*.css' {
  /** The text of the file, where esbuild bundles it; nothing elsewhere. */
  const text: string;
  export default text;
}
