import { types, type CustomTypesConfig } from 'pg'
import { canonicalTimestamp } from '../../schema/values/timestamp.ts'
import { decodeVector } from '../../schema/values/vector.ts'

/** Types whose values differ from what `pg` makes of them; so that rows of the centre read as rows of an agent. */
const Oid = {
  bytea: 17,
  int8: 20,
  timestamp: 1114,
  timestamptz: 1184,
  timestamptzArray: 1185,
} as const

type Parser = (text: string) => unknown

/** Microseconds survive; infinities and years beyond ISO stay as PostgreSQL prints them. */
const parseTimestamp: Parser = (text) => {
  try {
    return canonicalTimestamp(text)
  } catch {
    return text
  }
}

const parsers = new Map<number, Parser>([
  [Oid.int8, Number],
  [Oid.timestamptz, parseTimestamp],
  [Oid.timestamp, (text) => text],
  [Oid.bytea, (text) => decodeVector(Buffer.from(text.slice(2), 'hex'))],
])

export const centralTypes: CustomTypesConfig = {
  getTypeParser(oid: number, format?: 'text' | 'binary') {
    const own = format === 'binary' ? undefined : parsers.get(oid)
    // oxlint-disable-next-line typescript/no-unsafe-return -- pg's own signature is any
    return own ?? (types.getTypeParser(oid, format ?? 'text') as Parser)
  },
}
