import type { Json } from '../define.ts'

/**
 * Canonical JSON: the one text of a JSON value, equal on every side. Keys in code unit order, no white space,
 * numbers as JavaScript prints them (RFC 8785). `jsonb` reorders keys and keeps decimals, so text is compared only
 * after it went through here.
 *
 *   {"b":1,"a":[true,null]}   ->  {"a":[true,null],"b":1}
 *   1.50                      ->  1.5
 *
 * Refused, because they do not come back as they went: U+0000, lone surrogates, NaN, infinities, bigint, undefined in
 * arrays, dates, functions, cycles, and nesting beyond {@link JSON_DEPTH_MAX}.
 */
export const JSON_DEPTH_MAX = 128

/** Thrown by the value codecs; whoever knows the table and column turns it into an `AgentDBError`. */
export class ValueProblem extends Error {}

// eslint-disable-next-line no-control-regex -- U+0000 is what we look for
const refused = /\u0000|\p{Surrogate}/u

/** Why a text cannot be stored, or undefined. */
export function textProblem(text: string): string | undefined {
  const found = refused.exec(text)
  if (found === null) return undefined
  return found[0] === '\u0000'
    ? `contains U+0000 at ${found.index}, which PostgreSQL cannot store`
    : `contains a lone surrogate at ${found.index}, which is not valid Unicode`
}

/** Canonical text of a value; throws {@link ValueProblem} with the path in the value. */
export function canonicalJson(value: unknown): string {
  return write(value, '$', 0)
}

function write(value: unknown, path: string, depth: number): string {
  if (value === null) return 'null'
  switch (typeof value) {
    case 'string': {
      const problem = textProblem(value)
      if (problem !== undefined) throw new ValueProblem(`${path} ${problem}`)
      return JSON.stringify(value)
    }
    case 'number':
      if (!Number.isFinite(value)) throw new ValueProblem(`${path} is ${value}, not a JSON number`)
      return JSON.stringify(value)
    case 'boolean':
      return value ? 'true' : 'false'
    case 'object':
      if (depth >= JSON_DEPTH_MAX) {
        throw new ValueProblem(`${path.slice(0, 80)} is nested deeper than ${JSON_DEPTH_MAX}`)
      }
      return Array.isArray(value) ? writeArray(value, path, depth) : writeObject(value, path, depth)
    default:
      throw new ValueProblem(`${path} is a ${typeof value}, which JSON cannot hold`)
  }
}

function writeArray(value: readonly unknown[], path: string, depth: number): string {
  let out = '['
  for (let i = 0; i < value.length; i++) {
    if (i > 0) out += ','
    out += write(value[i], `${path}[${i}]`, depth + 1)
  }
  return `${out}]`
}

function writeObject(value: object, path: string, depth: number): string {
  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype !== Object.prototype && prototype !== null) {
    const { constructor } = value as { constructor?: { name?: string } }
    throw new ValueProblem(
      `${path} is a ${constructor?.name ?? 'special object'}; give plain objects`,
    )
  }
  let out = '{'
  for (const key of Object.keys(value).toSorted()) {
    const member = (value as Record<string, unknown>)[key]
    if (member === undefined) continue
    const problem = textProblem(key)
    if (problem !== undefined) throw new ValueProblem(`${path} has a key that ${problem}`)
    if (out.length > 1) out += ','
    out += `${JSON.stringify(key)}:${write(member, `${path}.${key}`, depth + 1)}`
  }
  return `${out}}`
}

/** Parses JSON text and gives its canonical text; throws {@link ValueProblem} where numbers would change. */
export function canonicalizeJsonText(text: string): string {
  const problem = lossyNumber(text)
  if (problem !== undefined)
    throw new ValueProblem(`$ has the number ${problem}, which a double cannot hold`)
  let parsed: Json
  try {
    parsed = JSON.parse(text) as Json
  } catch (error) {
    throw new ValueProblem(
      `$ is not JSON: ${error instanceof Error ? error.message : String(error)}`,
    )
  }
  return canonicalJson(parsed)
}

/** 15 digits always survive, before and after the point together. Ids and times, in their quotes, are no numbers. */
const suspicious = /(?:^|[:[,\s])-?(?:(?:[0-9]\.?){16}|[0-9]+(?:\.[0-9]+)?[eE])/
const tokens = /"(?:[^"\\]|\\.)*"|-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/g

/** The first number of a JSON text that a double does not hold exactly as written, or undefined. */
export function lossyNumber(text: string): string | undefined {
  if (!suspicious.test(text)) return undefined
  for (const [token] of text.matchAll(tokens)) {
    if (isLossy(token)) return token
  }
  return undefined
}

const none: ReadonlySet<string> = new Set()
const tokensAndBrackets = new RegExp(`[{}[\\],]|${tokens.source}`, 'g')

/** The members of a JSON object's text that hold a number which a double does not. */
export function lossyMembers(text: string): ReadonlySet<string> {
  if (lossyNumber(text) === undefined) return none
  const lossy = new Set<string>()
  let depth = 0
  let isKeyNext = false
  let member = ''
  for (const [token] of text.matchAll(tokensAndBrackets)) {
    if (token === '{' || token === '[') {
      depth += 1
      isKeyNext = depth === 1
    } else if (token === '}' || token === ']') {
      depth -= 1
    } else if (token === ',') {
      isKeyNext = depth === 1
    } else if (isKeyNext) {
      member = JSON.parse(token) as string
      isKeyNext = false
    } else if (isLossy(token)) {
      lossy.add(member)
    }
  }
  return lossy
}

const isLossy = (token: string): boolean =>
  !token.startsWith('"') && decimal(token) !== decimal(String(Number(token)))

/** A decimal as sign, digits without outer zeros, and exponent: equal texts for equal numbers. */
function decimal(token: string): string {
  const match = /^(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?$/.exec(token)
  if (match === null) return token
  const [, sign = '', whole = '', fraction = '', exponent = '0'] = match
  const digits = `${whole}${fraction}`.replace(/^0+/, '')
  const trimmed = digits.replace(/0+$/, '')
  if (trimmed === '') return '0'
  return `${sign}${trimmed}e${Number(exponent) - fraction.length + digits.length - trimmed.length}`
}
