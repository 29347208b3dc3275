/** A broken image, in words; only made when something is wrong. */
export class Broken extends Error {}
