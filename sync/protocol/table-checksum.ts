import type { Stored } from '../../schema/codec.ts'

/**
 * The text that a row adds to its table's checksum: stored forms in order of definition, then which of them are
 * placeholders, so that it is equal on both sides exactly when all values are. Rows are fed in ascending order of id.
 */
export function checksumText(values: readonly Stored[], placeholders?: readonly number[]): string {
  const text = JSON.stringify(
    values.map((value) => (value instanceof Uint8Array ? { bytes: hex(value) } : value)),
  )
  return placeholders === undefined ? `${text}\n` : `${text}${JSON.stringify(placeholders)}\n`
}

const digits = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'))

function hex(bytes: Uint8Array): string {
  let text = ''
  for (const byte of bytes) text += digits[byte] ?? ''
  return text
}
