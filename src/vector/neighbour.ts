/** A vector that was found. */
export interface Neighbour {
  readonly id: string
  /** Cosine of the angle, -1 to 1; 0 where a vector has no direction. */
  readonly score: number
}
