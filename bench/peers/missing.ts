import { createRequire } from 'node:module'

/** Why a peer cannot take part here, and what to do about it. */
export interface Missing {
  readonly missing: string
}

export const isMissing = (value: unknown): value is Missing =>
  typeof value === 'object' && value !== null && 'missing' in value

export const HOW_TO_INSTALL = 'not run: npm ci --prefix bench/peers'

/** Where peers are looked for; tests look where there are none. */
export interface PeerPlaces {
  /** A file in the folder whose `node_modules` has them. Default: this folder. */
  readonly packages?: string | URL
  /** Default: what `CXX` names, or g++. */
  readonly compiler?: string
}

/** Peers are no dependencies of ours: they are installed in this folder, when someone wants to compare. */
export function requirePeer<T>(
  name: string,
  { packages = new URL('package.json', import.meta.url) }: PeerPlaces = {},
): T | Missing {
  const require = createRequire(packages)
  try {
    require.resolve(name)
  } catch {
    return { missing: HOW_TO_INSTALL }
  }
  try {
    return require(name) as T
  } catch (error) {
    const why = error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error)
    return { missing: `${name} cannot be loaded: ${why}` }
  }
}
