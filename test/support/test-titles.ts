/** Titles of the tests and suites of a file, also of parametrised ones. */
export function testTitles(source: string): string[] {
  return [
    ...source.matchAll(
      /(?:test|describe|it)(?:\.each(?:<[^(]*>)?\((?:[^()]|\([^()]*\))*\))?(?:\.\w+)?\(\s*(['"`])((?:\\.|(?!\1).)*)\1/gs,
    ),
  ].map(([, , title = '']) => title)
}
