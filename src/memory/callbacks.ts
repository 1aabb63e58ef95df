import type { Json } from '../../schema/define.ts'
import { AgentDBError, preview } from '../../schema/errors.ts'
import type { TrajectoryOutcome } from '../../schema/tables/memory.ts'
import { textProblem } from '../../schema/values/canonical-json.ts'
import type { Embedder } from '../vector/embedder.ts'
import { parseItems } from './markdown.ts'
import type { Judgement, MemoryItemText } from './types.ts'

/**
 * Functions that programs give to the memory mostly ask a model, which answers what it likes. What they give is checked
 * here whole, before anything is written.
 */

/** Most characters of each part; a model that rambles is refused, not cut. */
export const TITLE_MAX = 500
export const DESCRIPTION_MAX = 2000
export const CONTENT_MAX = 10_000
export const THOUGHTS_MAX = 100_000
const MARKDOWN_MAX = 1_000_000
/** Most items that are written at once by hand, or stand in one line of an imported file. */
export const APPENDED_MAX = 50

/** Runs a function of the program's; what it throws becomes the cause. */
export async function called<T>(name: string, run: () => T | Promise<T>): Promise<T> {
  try {
    return await run()
  } catch (error) {
    throw failed(name, `threw: ${error instanceof Error ? error.message : preview(error)}`, error)
  }
}

export const failed = (name: string, why: string, cause?: unknown): AgentDBError =>
  new AgentDBError('CALLBACK_FAILED', `${name} ${why}`, { cause })

const labels: ReadonlyMap<unknown, TrajectoryOutcome> = new Map([
  ['success', 'success'],
  ['failure', 'failure'],
  ['impossible', 'impossible'],
  ['task-possible-bot-success', 'success'],
  ['task-possible-bot-fail', 'failure'],
  ['task-impossible', 'impossible'],
])

/** Outcome and verdict as they are stored. */
export function checkedJudgement(given: Judgement): {
  readonly outcome: TrajectoryOutcome
  readonly judge: { readonly [key: string]: Json }
} {
  const name = 'judge'
  const { label, thoughts, confidence, model } = mustBeObject(name, given)
  const outcome = labels.get(label)
  if (outcome === undefined)
    throw failed(name, `gave label ${preview(label)}; there are ${[...labels.keys()].join(', ')}`)
  if (
    confidence !== undefined &&
    !(typeof confidence === 'number' && confidence >= 0 && confidence <= 1)
  )
    throw failed(name, `gave confidence ${preview(confidence)}, not a number of 0 to 1`)
  return {
    outcome,
    judge: {
      label: String(label),
      thoughts:
        thoughts === undefined ? null : checkedText(name, 'thoughts', thoughts, THOUGHTS_MAX),
      confidence: confidence === undefined ? null : confidence,
      model: model === undefined ? null : checkedText(name, 'model', model, 100),
    },
  }
}

/** Items of a distillation, 0 to `most`; Markdown is parsed. */
export function checkedItems(name: string, given: unknown, most: number): MemoryItemText[] {
  if (typeof given === 'string' && given.length > MARKDOWN_MAX)
    throw failed(name, `gave ${given.length} characters; most are ${MARKDOWN_MAX}`)
  const items: unknown = typeof given === 'string' ? parseItems(given) : given
  if (!Array.isArray(items))
    throw failed(name, `gave ${preview(given)}, neither Markdown nor a list of items`)
  if (items.length > most) throw failed(name, `gave ${items.length} items; most are ${most}`)
  if (typeof given === 'string' && items.length === 0 && given.trim() !== '')
    throw failed(name, `gave no memory item: no "# Memory Item" in ${preview(given)}`)
  return items.map((item: unknown, i) => checkedItem(name, item, `items[${i}]`))
}

function checkedItem(name: string, given: unknown, where: string): MemoryItemText {
  const { title, description, content } = mustBeObject(name, given)
  const part = (field: string, value: unknown, most: number): string => {
    const text = checkedText(name, `${where}.${field}`, value, most).trim()
    if (text === '') throw failed(name, `gave ${where}.${field} without text`)
    return text
  }
  return {
    title: oneLine(part('title', title, TITLE_MAX)),
    description: oneLine(part('description', description, DESCRIPTION_MAX)),
    content: part('content', content, CONTENT_MAX),
  }
}

const oneLine = (text: string): string => text.replaceAll(/\s+/g, ' ')

function mustBeObject(name: string, given: unknown): Readonly<Record<string, unknown>> {
  if (typeof given !== 'object' || given === null || Array.isArray(given))
    throw failed(name, `gave ${preview(given)}, not an object`)
  return given as Readonly<Record<string, unknown>>
}

function checkedText(name: string, field: string, value: unknown, most: number): string {
  if (typeof value !== 'string') throw failed(name, `gave ${field} ${preview(value)}, not a string`)
  if (value.length > most)
    throw failed(name, `gave ${field} of ${value.length} characters; most are ${most}`)
  const problem = textProblem(value)
  if (problem !== undefined) throw failed(name, `gave ${field} that ${problem}`)
  return value
}

/** A vector for each text, all of one dimension and with a direction. */
export async function embedTexts(
  { model, embed }: Embedder,
  texts: readonly string[],
): Promise<Float32Array[]> {
  const name = `embed (${model})`
  const vectors: unknown = await called(name, () => embed(texts))
  if (!Array.isArray(vectors) || vectors.length !== texts.length) {
    const count = Array.isArray(vectors) ? `${vectors.length} vectors` : preview(vectors)
    throw failed(name, `gave ${count} for ${texts.length} texts`)
  }
  const dimension = vectors[0] instanceof Float32Array ? vectors[0].length : 0
  return vectors.map((vector: unknown, i) => {
    const problem = vectorFault(vector, dimension)
    if (problem !== undefined) throw failed(name, `gave vector ${i} ${problem}`)
    return vector as Float32Array
  })
}

/** Why a vector cannot be compared, or undefined. */
export function vectorFault(vector: unknown, dimension?: number): string | undefined {
  if (!(vector instanceof Float32Array)) return `that is ${preview(vector)}, not a Float32Array`
  if (vector.length === 0) return 'without dimensions'
  if (dimension !== undefined && vector.length !== dimension)
    return `of ${vector.length} dimensions, not ${dimension}`
  if (!vector.every(Number.isFinite)) return 'with components that are not finite'
  return vector.some((component) => component !== 0)
    ? undefined
    : 'of zeros, which has no direction'
}
