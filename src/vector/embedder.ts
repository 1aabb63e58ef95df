/** Turns texts into vectors, all of one dimension. */
export type Embed = (
  texts: readonly string[],
) => Promise<readonly Float32Array[]> | readonly Float32Array[]

export interface Embedder {
  /** Name of the model, stored with every vector: vectors of two models are never compared. */
  readonly model: string
  readonly embed: Embed
  /** Share of its vectors in hybrid search, 0 to 1. Default: {@link GIVEN_MODEL_WEIGHT}. */
  readonly vectorWeight?: number | undefined
}

/** Share of the vectors in hybrid search where a program gives a model and says nothing else. */
export const GIVEN_MODEL_WEIGHT = 0.5

export const HASHING_DIMENSION = 384

/**
 * The built-in embedder: feature hashing of words, word pairs and character trigrams. Deterministic, offline, and what
 * its name says: texts that share words are near, texts that share only meaning are not. Pass a model's `embed` for that.
 */
export const hashingEmbedder: Embedder = {
  model: `hashing-${HASHING_DIMENSION}`,
  embed: (texts) => texts.map(hashText),
  // It knows what words know, less well: it orders what they leave equal or do not find (docs/decisions/0011).
  vectorWeight: 1e-9,
}

const word = /[\p{L}\p{N}_]+/gu

function hashText(text: string): Float32Array {
  const counts = new Map<string, number>()
  const count = (feature: string, weight: number): void => {
    counts.set(feature, (counts.get(feature) ?? 0) + weight)
  }
  let before: string | undefined
  for (const [raw] of text.normalize('NFKC').toLowerCase().matchAll(word)) {
    count(`w:${raw}`, 1)
    if (before !== undefined) count(`p:${before} ${raw}`, 0.5)
    const padded = `^${raw}$`
    for (let i = 0; i + 3 <= padded.length; i++) count(`t:${padded.slice(i, i + 3)}`, 0.25)
    before = raw
  }
  const vector = new Float32Array(HASHING_DIMENSION)
  for (const [feature, weight] of counts) {
    const hash = fnv1a(feature)
    const slot = hash % HASHING_DIMENSION
    vector[slot] = (vector[slot] ?? 0) + (hash >>> 31 === 0 ? 1 : -1) * Math.sqrt(weight)
  }
  return normalized(vector)
}

function fnv1a(text: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) {
    hash ^= text.charCodeAt(i)
    hash = Math.imul(hash, 0x01000193)
  }
  // Finalizer of MurmurHash3: FNV's low bits are poor for a modulus.
  hash ^= hash >>> 16
  hash = Math.imul(hash, 0x85ebca6b)
  hash ^= hash >>> 13
  return hash >>> 0
}

/** A text without words has no direction; it gets a fixed one, so that it is stored and found like any other. */
function normalized(vector: Float32Array): Float32Array {
  let squares = 0
  for (const component of vector) squares += component * component
  if (squares === 0) vector[0] = 1
  else {
    const scale = 1 / Math.sqrt(squares)
    for (let i = 0; i < vector.length; i++) vector[i] = (vector[i] ?? 0) * scale
  }
  return vector
}
