import { ValueProblem } from './canonical-json.ts'

/** An IP address with optional mask, written as PostgreSQL's `inet` prints it. */
export function canonicalInet(value: unknown): string {
  if (typeof value !== 'string') throw new ValueProblem('is not an IP address')
  const [address = '', mask, ...rest] = value.split('/')
  if (rest.length > 0) throw new ValueProblem('is not an IP address')
  const v4 = ipv4(address)
  const canonical = v4 ?? ipv6(address)
  if (canonical === undefined) throw new ValueProblem('is not an IP address')
  if (mask === undefined) return canonical
  const bits = v4 === undefined ? 128 : 32
  if (!/^\d{1,3}$/.test(mask) || Number(mask) > bits)
    throw new ValueProblem('has a mask that does not exist')
  return Number(mask) === bits ? canonical : `${canonical}/${Number(mask)}`
}

function ipv4(text: string): string | undefined {
  const parts = text.split('.')
  if (parts.length !== 4) return undefined
  if (!parts.every((part) => /^(0|[1-9]\d{0,2})$/.test(part) && Number(part) <= 255))
    return undefined
  return text
}

function ipv6(text: string): string | undefined {
  if (!text.includes(':') || !/^[0-9a-fA-F:.]+$/.test(text)) return undefined
  let host: string
  try {
    host = new URL(`http://[${text}]/`).hostname.slice(1, -1)
  } catch {
    return undefined
  }
  // PostgreSQL prints IPv4-mapped and IPv4-compatible addresses with dots.
  const mapped = /^::(ffff:)?([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(host)
  if (mapped === null) return host
  const [high, low] = [Number.parseInt(mapped[2] ?? '0', 16), Number.parseInt(mapped[3] ?? '0', 16)]
  return `::${mapped[1] ?? ''}${high >> 8}.${high & 255}.${low >> 8}.${low & 255}`
}
