/**
 * How bytes may be compressed on their way. A side sends only what the other said it reads: an agent by
 * `accept-encoding`, of a live stream by the parameter `encoding`; the centre by a header on every answer.
 */
export const encodings = ['br', 'gzip'] as const
export type Encoding = (typeof encodings)[number]

/** Says, on every answer of the centre, how requests may be compressed. */
export const ACCEPT_HEADER = 'x-agentdb-accept-encoding'

/** Fewer bytes go as they are: they fit into a packet or two. */
export const COMPRESSED_BYTES_MIN = 1024

/** The one of ours to use where a header names what the other side reads; undefined is none. */
export function chooseEncoding(accepted: string | undefined | null): Encoding | undefined {
  const named = (accepted ?? '')
    .toLowerCase()
    .split(',')
    .map((part) => part.trim())
  const taken = named
    .filter((part) => !/;\s*q=0(?:\.0*)?$/.test(part))
    .map((part) => part.split(';')[0]?.trim())
  return encodings.find((encoding) => taken.includes(encoding))
}
