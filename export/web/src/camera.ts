// The camera: gives one picture after the other to whoever looks, as fast as that goes.

export class Camera {
  private readonly video = document.createElement("video");
  /** Which start is the one that runs: while the browser asks, people stop and start again. */
  private turn = 0;
  private stream: MediaStream | undefined;
  on = false;

  /**
   * @param look is given the camera's picture, and waited for before the next one.
   * @param tell is told how many a second, and undefined when the camera is off.
   */
  constructor(
    private readonly look: (video: HTMLVideoElement) => Promise<void>,
    private readonly tell: (rate: number | undefined) => void,
  ) {
    this.video.muted = true;
    this.video.playsInline = true;
  }

  /** Runs until `stop`; fails where there is no camera, or it may not be used. */
  async start() {
    if (!navigator.mediaDevices) {
      throw new Error("The browser gives the camera only to pages from localhost or https.");
    }
    const turn = ++this.turn;
    this.on = true;
    this.tell(0);
    let stream: MediaStream | undefined;
    try {
      const video = { facingMode: "environment", width: { ideal: 1280 } };
      stream = await navigator.mediaDevices.getUserMedia({ video }).catch((error: Error) => {
        throw new Error(`The camera cannot be used (${error.message}).`);
      });
      if (turn !== this.turn) return;
      this.stream = stream;
      let taken = false;
      for (const track of stream.getVideoTracks()) {
        track.addEventListener("ended", () => { // not by us: unplugged, or no longer allowed
          if (turn !== this.turn) return;
          taken = true;
          this.stop();
        });
      }
      this.video.srcObject = stream;
      await this.video.play();
      await this.run(turn);
      if (taken) throw new Error("The camera was taken away.");
    } finally {
      stream?.getTracks().forEach((track) => track.stop());
      if (turn === this.turn) this.stop();
    }
  }

  private async run(turn: number) {
    let rate = 0;
    while (turn === this.turn) {
      const begin = performance.now();
      await this.look(this.video);
      // A frame of rest, so that the page can be drawn and used.
      await new Promise(requestAnimationFrame);
      const now = 1000 / (performance.now() - begin);
      rate = rate ? 0.9 * rate + 0.1 * now : now;
      if (turn === this.turn) this.tell(rate);
    }
  }

  /** Lets go of the camera at once: in a page that nobody sees the picture in hand may be looked at much later. */
  stop() {
    this.turn++;
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = undefined;
    this.on = false;
    this.tell(undefined);
  }
}
