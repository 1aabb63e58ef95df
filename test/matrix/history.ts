export interface AgentOptions {
  readonly name: string
  readonly path: string
  readonly userId: string
  readonly url: string
  readonly token: string
  /** Two: every transaction writes to both, so that half of one would show. */
  readonly conversations: readonly string[]
  /** Mean pause between two transactions. */
  readonly meanMs: number
}

/** What a reader sees of one conversation, by agent. Numbers of an agent are 1, 2, 3, ... */
export type View = Record<string, { last: number; count: number }>

/** A line that an agent printed. */
export type Observation =
  | { readonly kind: 'started'; readonly agent: string }
  /** A transaction that returned: its number, what it had seen, and the views that it read. */
  | {
      readonly kind: 'wrote'
      readonly agent: string
      readonly n: number
      readonly depends: Readonly<Record<string, number>>
      readonly views: readonly View[]
    }
  /** A transaction of an earlier life of the process, found in its store. */
  | {
      readonly kind: 'found'
      readonly agent: string
      readonly n: number
      readonly depends: Readonly<Record<string, number>>
    }
  | { readonly kind: 'saw'; readonly agent: string; readonly views: readonly View[] }
  | { readonly kind: 'outcome'; readonly agent: string; readonly outcome: string }
  | {
      readonly kind: 'status'
      readonly agent: string
      readonly pending: number
      readonly position: number
      readonly state: string
      readonly error: string | null
    }

/** What went wrong, in words. */
export type Violation = string

/**
 * Judges a history of observations, agent by agent in their order:
 *
 * - atomic: both conversations show the same transactions (I2)
 * - gapless, each once: of every agent a view holds 1..n without a hole or a double (I5, I7)
 * - monotonic: no agent sees less than it saw before (I3, I4, I14: also across kills)
 * - causal: whoever sees a transaction sees all that its writer had seen (causal consistency)
 * - final: in the end all see everything that was ever acknowledged, and so does the centre (I13)
 */
export class Checker {
  readonly #depends = new Map<string, Readonly<Record<string, number>>>()
  readonly #last = new Map<string, Record<string, number>>()
  readonly #acknowledged = new Map<string, number>()
  readonly violations: Violation[] = []
  /** Transactions that returned. */
  transactions = 0

  add(observation: Observation): void {
    switch (observation.kind) {
      case 'wrote':
        this.transactions += 1
        this.#depends.set(key(observation.agent, observation.n), observation.depends)
        this.#see(observation.agent, observation.views)
        this.#wrote(observation.agent, observation.n)
        break
      case 'found':
        this.#depends.set(key(observation.agent, observation.n), observation.depends)
        break
      case 'saw':
        this.#see(observation.agent, observation.views)
        break
      case 'outcome':
        this.violations.push(`${observation.agent}: a message was ${observation.outcome}`)
        break
      default:
    }
  }

  /** The last look of every agent, and the centre's. */
  finish(views: ReadonlyMap<string, readonly View[]>): void {
    for (const [reader, own] of views) {
      for (const view of own)
        for (const [agent, n] of this.#acknowledged)
          if ((view[agent]?.last ?? 0) < n)
            this.violations.push(
              `${reader} ends with ${view[agent]?.last ?? 0} of ${agent}'s ${n} acknowledged transactions`,
            )
    }
    const texts = new Set([...views.values()].map((own) => JSON.stringify(own.map(sorted))))
    if (texts.size > 1) this.violations.push(`${texts.size} different ends`)
  }

  #wrote(agent: string, n: number): void {
    const before = this.#acknowledged.get(agent) ?? 0
    if (n <= before)
      this.violations.push(`${agent} writes ${n} after ${before}: an acknowledged commit was lost`)
    this.#acknowledged.set(agent, Math.max(before, n))
  }

  #see(reader: string, views: readonly View[]): void {
    const [first = {}, second = {}] = views
    if (JSON.stringify(sorted(first)) !== JSON.stringify(sorted(second)))
      this.violations.push(`${reader} sees part of a transaction`)
    const before = this.#last.get(reader) ?? {}
    for (const [agent, { last, count }] of Object.entries(first)) {
      if (count !== last)
        this.violations.push(`${reader} sees ${count} messages of ${agent} up to number ${last}`)
      for (const [other, n] of Object.entries(this.#depends.get(key(agent, last)) ?? {}))
        if ((first[other]?.last ?? 0) < n)
          this.violations.push(
            `${reader} sees ${agent} ${last} without ${other} ${n}, which it depends on`,
          )
    }
    for (const [agent, n] of Object.entries(before))
      if ((first[agent]?.last ?? 0) < n)
        this.violations.push(`${reader} saw ${agent} ${n} before, and does no more`)
    this.#last.set(
      reader,
      Object.fromEntries(Object.entries(first).map(([agent, { last }]) => [agent, last])),
    )
  }
}

const key = (agent: string, n: number): string => `${agent} ${n}`

const sorted = (view: View): [string, { last: number; count: number }][] =>
  Object.entries(view).toSorted(([a], [b]) => (a < b ? -1 : 1))
