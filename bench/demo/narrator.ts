/** A check of the demo that did not hold. */
export class DemoFailure extends Error {}

export interface Check {
  readonly name: string
  readonly ok: boolean
}

/** Tells the story as it happens, each line with the seconds since the start. */
export class Narrator {
  readonly checks: Check[] = []
  readonly #startedAt = performance.now()
  readonly #steps: number
  readonly #isTerminal = process.stdout.isTTY
  #step = 0
  #quarter = 0

  constructor(steps: number) {
    this.#steps = steps
  }

  get elapsedMs(): number {
    return Math.round(performance.now() - this.#startedAt)
  }

  title(text: string): void {
    process.stdout.write(`\n  ${text}\n`)
  }

  step(text: string): void {
    this.#step += 1
    process.stdout.write(`\n${this.#clock()}  ${this.#step}/${this.#steps}  ${text}\n`)
  }

  say(text: string): void {
    this.#line(`     ${text}`)
  }

  /** Name and value, aligned with the other figures. */
  figure(name: string, value: string | number): void {
    this.#line(`     ${name.padEnd(22)} ${value}`)
  }

  /** Says what was checked; a check that does not hold ends the demo. */
  check(name: string, ok: boolean, otherwise?: unknown): void {
    this.checks.push({ name, ok })
    this.#line(`${ok ? 'ok ' : 'NO '}  ${name}`)
    if (ok) return
    const found = otherwise === undefined ? '' : `: ${JSON.stringify(otherwise)}`
    throw new DemoFailure(`does not hold: ${name}${found}`)
  }

  /** A bar on a terminal, a line each quarter elsewhere. */
  progress(name: string, done: number, total: number): void {
    const share = total === 0 ? 1 : done / total
    if (this.#isTerminal) {
      const width = 28
      const full = Math.round(share * width)
      const bar = `${'█'.repeat(full)}${'░'.repeat(width - full)}`
      process.stdout.write(`\r${this.#clock()}       ${name.padEnd(22)} ${bar} ${done}/${total}`)
      if (done >= total) process.stdout.write('\r\u001B[K')
      return
    }
    const quarter = Math.floor(share * 4)
    if (quarter > this.#quarter && done < total)
      this.#line(`     ${name.padEnd(22)} ${done}/${total}`)
    this.#quarter = done >= total ? 0 : quarter
  }

  #line(text: string): void {
    process.stdout.write(`${this.#isTerminal ? '\r\u001B[K' : ''}${this.#clock()}  ${text}\n`)
  }

  #clock(): string {
    return `${(this.elapsedMs / 1000).toFixed(1).padStart(6)} s`
  }
}
