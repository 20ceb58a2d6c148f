declare module '*.css' {
  /** The text of the file in esbuild's bundle; unused elsewhere. */
  const text: string;
  export default text;
}
