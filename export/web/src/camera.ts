// The camera: gives one picture after the other to whoever looks, as fast as that goes.

export class Camera {
  private readonly video = document.createElement("video");
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
    this.on = true;
    this.tell(0);
    try {
      const video = { facingMode: "environment", width: { ideal: 1280 } };
      this.stream = await navigator.mediaDevices.getUserMedia({ video }).catch((error: Error) => {
        throw new Error(`The camera cannot be used (${error.message}).`);
      });
      this.video.srcObject = this.stream;
      await this.video.play();
      await this.run();
    } finally {
      this.stop();
    }
  }

  private async run() {
    let rate = 0;
    while (this.on) {
      const begin = performance.now();
      await this.look(this.video);
      // A frame of rest, so that the page can be drawn and used.
      await new Promise(requestAnimationFrame);
      const now = 1000 / (performance.now() - begin);
      rate = rate ? 0.9 * rate + 0.1 * now : now;
      if (this.on) this.tell(rate);
    }
  }

  stop() {
    this.on = false;
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = undefined;
    this.tell(undefined);
  }
}
