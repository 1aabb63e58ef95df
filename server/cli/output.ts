/** Results go to standard output, what is said about them to standard error: a pipe gets only results. */
export function print(text: string): void {
  process.stdout.write(`${text}\n`)
}

export function printError(text: string): void {
  process.stderr.write(`${text}\n`)
}

/** One line, so that several can be told apart. */
export function printJson(value: unknown): void {
  print(JSON.stringify(value))
}

/** Two columns, aligned. */
export function table(rows: readonly (readonly [string, string])[]): string {
  const width = Math.max(...rows.map(([name]) => name.length))
  return rows.map(([name, value]) => `  ${name.padEnd(width)}  ${value}`).join('\n')
}

/** `3 users`, `1 user`. */
export const plural = (count: number, noun: string): string =>
  `${count} ${noun}${count === 1 ? '' : 's'}`

/** A duration for people: `3.2 s`, `14 min`, `2 d`. */
export function duration(ms: number): string {
  const units: readonly (readonly [number, string])[] = [
    [86_400_000, 'd'],
    [3_600_000, 'h'],
    [60_000, 'min'],
  ]
  for (const [size, unit] of units) if (ms >= size) return `${Math.floor(ms / size)} ${unit}`
  return ms >= 1000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms)} ms`
}

const BAR_WIDTH = 30
let tenthShown = -1

/** A bar on a terminal; elsewhere a line each tenth. On standard error, like all that is not the result. */
export function printProgress(
  what: string,
  unit: string,
  { rows, total, done }: { rows: number; total: number; done: boolean },
): void {
  const share = total === 0 ? 1 : Math.min(1, rows / total)
  const text = `${rows.toLocaleString('en')} of ${total.toLocaleString('en')} ${unit}, ${Math.floor(share * 100)} %`
  if (process.stderr.isTTY) {
    const filled = Math.round(share * BAR_WIDTH)
    const bar = `${'█'.repeat(filled)}${'░'.repeat(BAR_WIDTH - filled)}`
    process.stderr.write(`\r${what} ${bar} ${text}${done ? '\n' : ''}`)
    return
  }
  const tenth = Math.floor(share * 10)
  if (tenth !== tenthShown || done) printError(`${what} ${text}`)
  tenthShown = done ? -1 : tenth
}
