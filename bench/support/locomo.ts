import { readFileSync } from 'node:fs'
import { join } from 'node:path'

/** One long talk of two people over many sessions, with questions whose answers stand in some of them. */
export interface Talk {
  readonly sessions: readonly Session[]
  readonly questions: readonly Question[]
}

export interface Session {
  readonly date: string
  /** Speaker, what was said, and what a shared picture shows. */
  readonly turns: readonly string[]
}

export interface Question {
  readonly text: string
  /** Numbers of the sessions, from 0, that have the evidence. */
  readonly evidence: ReadonlySet<number>
}

/** Where LoCoMo lies; CC BY-NC, so it is never part of the project. */
export const locomoFolder = (): string | undefined => process.env['AGENTDB_LOCOMO'] || undefined

/** Reads `locomo10.json`: questions with evidence, 1 982 of them in ten talks. */
export function readLocomo(folder: string): Talk[] {
  const text = readFileSync(join(folder, 'locomo10.json'), 'utf8')
  return (JSON.parse(text) as RawTalk[]).map(({ conversation, qa }) => {
    const numbers = Object.keys(conversation)
      .flatMap((key) => /^session_(\d+)$/.exec(key)?.[1] ?? [])
      .map(Number)
      .toSorted((a, b) => a - b)
    const places = new Map(numbers.map((number, place) => [number, place]))
    return {
      sessions: numbers.map((number) => ({
        date: String(conversation[`session_${number}_date_time`]),
        turns: (conversation[`session_${number}`] as RawTurn[]).map(
          ({ speaker, text: said, blip_caption: caption = '' }) => `${speaker}: ${said} ${caption}`,
        ),
      })),
      questions: qa.flatMap(({ question, evidence = [] }) => {
        const found = evidence.flatMap((place) =>
          Array.from(place.matchAll(/D(\d+)/g), ([, number]) => places.get(Number(number))),
        )
        const sessions = new Set(found.filter((place) => place !== undefined))
        return sessions.size === 0 ? [] : [{ text: question, evidence: sessions }]
      }),
    }
  })
}

interface RawTurn {
  readonly speaker: string
  readonly text: string
  readonly blip_caption?: string
}

interface RawTalk {
  readonly conversation: Readonly<Record<string, unknown>>
  readonly qa: readonly { readonly question: string; readonly evidence?: readonly string[] }[]
}

/** Made up, in the shape of LoCoMo: the tests run the bench on it. */
export const madeUpTalks: readonly Talk[] = [0, 1].map((n) => ({
  sessions: [
    { date: '8 May 2023', turns: ['Ada: I adopted a greyhound', 'Ben: What is its name?'] },
    { date: '9 June 2023', turns: ['Ben: The orchard froze', `Ada: I bake pear tart ${n}`] },
    { date: '1 July 2023', turns: ['Ada: The ferry to Skye was late', 'Ben: Bring a raincoat'] },
  ],
  questions: [
    { text: 'Which dog did Ada adopt?', evidence: new Set([0]) },
    { text: 'What does Ada bake with pears?', evidence: new Set([1]) },
    { text: 'Was the ferry late in July?', evidence: new Set([2]) },
  ],
}))
