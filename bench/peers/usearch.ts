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

/** usearch's graph without anything of ours around it; read from a file that it saved, so that it is the same graph. */
export async function graphOfUsearch(
  file: string,
  { dimension, m, ef }: { dimension: number; m: number; ef: number },
): Promise<(probe: Float32Array, k: number) => number[]> {
  const { Index, MetricKind, ScalarKind } = await import('usearch')
  const index = new Index({
    dimensions: dimension,
    metric: MetricKind.Cos,
    quantization: ScalarKind.F16,
    connectivity: m,
    expansion_add: 100,
    expansion_search: ef,
    multi: false,
  })
  index.load(file)
  return (probe, k) => Array.from(index.search(probe, k, 1).keys as ArrayLike<bigint>, Number)
}
