/** The keys of the nearest rows of a matrix. */
type ExactSearch = (matrix: Float32Array, probe: Float32Array, k: number) => bigint[]

/** usearch's exact scan, cosine, on one thread; undefined where the optional package is not installed. */
export async function exactSearchOfUsearch(): Promise<ExactSearch | undefined> {
  const usearch = await import('usearch').catch(() => undefined)
  if (usearch === undefined) return undefined
  const { exactSearch, MetricKind } = usearch
  return (matrix, probe, k) => {
    // It reads from the start of the buffer, whatever part of it a view means.
    if (matrix.byteOffset !== 0 || probe.byteOffset !== 0)
      throw new RangeError('give usearch arrays that start their buffer')
    return [...exactSearch(matrix, probe, probe.length, k, MetricKind.Cos, 1).keys] as bigint[]
  }
}
